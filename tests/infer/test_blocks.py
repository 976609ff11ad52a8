"""Dense blocks for the encoder, against a brute-force product with the column map."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scrcl_infer import blocks, csc, memory, stored
from scrcl_infer.blocks import iter_blocks, iter_csr_blocks
from scrcl_infer.errors import InputError, MatrixError
from scrcl_infer.h5ad import H5ad, open_source

N, G, C = 61, 17, 6
COUNTS = np.random.default_rng(3).poisson(0.5, (N, G)).astype(np.float32)
COUNTS[[0, 7, 8, N - 1]] = 0  # empty cells, also at both ends
COLUMNS = np.array([-1, 3, 0, -2, 5, 3, 1, -1, 2, 0, 3, -2, -1, 4, 5, -1, -1], dtype=np.int32)


def expected(values: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Column by column, the long way."""
    out = np.zeros((len(values), C))
    library = np.zeros((len(values), 1))
    for gene, column in enumerate(COLUMNS):
        if column >= 0:
            out[:, column] += values[:, gene]
        if column != -2:
            library[:, 0] += values[:, gene]
    return out, library


def collect(source: Any, where: str = "X", **options: Any) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    settings_ = {"block_size": 10, "columns": COLUMNS, "n_columns": C, "threads": 1} | options
    got = list(iter_blocks(source, where, **settings_))
    sizes = [len(block.counts) for block in got]
    assert [block.start for block in got] == [0, *np.cumsum(sizes)[:-1]]
    assert all(size == settings_["block_size"] for size in sizes[:-1])
    for block in got:
        assert block.counts.dtype == block.library_size.dtype == np.float32
        assert block.counts.flags.c_contiguous
        assert block.library_size.shape == (len(block.counts), 1)
    return np.vstack([block.counts for block in got]), np.vstack([block.library_size for block in got])


def write(path: Path, matrix: Any, *, compression: str | None = "gzip") -> Path:
    anndata.AnnData(matrix).write_h5ad(path, compression=compression)
    return path


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several parts, batches and buckets even in so small a matrix."""
    monkeypatch.setattr(stored, "PART_ENTRIES", 40)
    monkeypatch.setattr(csc, "PART_ENTRIES", 40)
    monkeypatch.setattr(memory, "PART_ENTRIES", 40)
    monkeypatch.setattr(csc, "BATCH_ENTRIES", 64)
    monkeypatch.setattr(stored, "PART_BYTES", 4 * G * 7)
    monkeypatch.setattr(memory, "PART_BYTES", 4 * G * 7)
    monkeypatch.setattr(memory, "BACKED_ROWS", 9)


KINDS = {"csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.asarray}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint16"])
@pytest.mark.parametrize("compression", ["gzip", "lzf", None])
def test_every_encoding_from_a_file(tmp_path: Path, kind: str, dtype: str, compression: str | None) -> None:
    path = write(tmp_path / "a.h5ad", KINDS[kind](COUNTS.astype(dtype)), compression=compression)
    with H5ad(path) as source:
        counts, library = collect(source, threads=2)
        # Reading again gives the same: nothing was used up.
        np.testing.assert_array_equal(collect(source, block_size=61)[0], counts)
    np.testing.assert_array_equal(counts, expected(COUNTS)[0])
    np.testing.assert_array_equal(library, expected(COUNTS)[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["whole", "view", "backed", "backed view"])
def test_every_encoding_from_an_adata(tmp_path: Path, kind: str, how: str) -> None:
    path = write(tmp_path / "a.h5ad", KINDS[kind](COUNTS))
    adata = anndata.read_h5ad(path, backed="r" if "backed" in how else None)
    order = np.arange(5, 50)
    with open_source(adata[5:50] if "view" in how else adata) as source:
        counts, library = collect(source)
    want = COUNTS[order] if "view" in how else COUNTS
    np.testing.assert_array_equal(counts, expected(want)[0])
    np.testing.assert_array_equal(library, expected(want)[1])
    if "backed" in how:
        adata.file.close()


def test_same_bytes_whatever_the_block_size_and_threads(tmp_path: Path) -> None:
    values = np.random.default_rng(5).random((N, G)).astype(np.float32) * (COUNTS > 0)
    for kind, build in KINDS.items():
        with H5ad(write(tmp_path / f"{kind}.h5ad", build(values))) as source:
            first = [a.tobytes() for a in collect(source, block_size=1)]
            for block_size, threads in [(7, 1), (7, 2), (1000, 1), (1000, 3), (61, 2)]:
                assert [a.tobytes() for a in collect(source, block_size=block_size, threads=threads)] == first, kind


@pytest.mark.parametrize("kind", KINDS)
def test_log1p_is_taken_back_before_summing(tmp_path: Path, kind: str) -> None:
    with H5ad(write(tmp_path / "a.h5ad", KINDS[kind](np.log1p(COUNTS)))) as source:
        counts, library = collect(source, log_base=math.e)
    np.testing.assert_allclose(counts, expected(COUNTS)[0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(library, expected(COUNTS)[1], rtol=1e-6)


def test_an_adata_is_never_changed() -> None:
    for build in KINDS.values():
        adata = anndata.AnnData(build(np.log1p(COUNTS)))
        with open_source(adata) as source:
            collect(source, log_base=math.e)
        values = adata.X.toarray() if sp.issparse(adata.X) else adata.X
        np.testing.assert_array_equal(values, np.log1p(COUNTS))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), encoding=st.sampled_from(["csr", "csc"]))
def test_unsorted_indices_and_repeated_entries(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, encoding: str
) -> None:
    """Files by other writers: entries of a row in any order, one place twice, int64 throughout, empty rows."""
    n_major, n_minor = (N, G) if encoding == "csr" else (G, N)
    lengths = data.draw(st.lists(st.integers(0, 5), min_size=n_major, max_size=n_major))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    indices = rng.integers(0, n_minor, sum(lengths))
    values = rng.integers(1, 9, sum(lengths)).astype(float)
    want = np.zeros((n_major, n_minor))
    np.add.at(want, (np.repeat(np.arange(n_major), lengths), indices), values)
    path = tmp_path_factory.mktemp("u") / "a.h5ad"
    with h5py.File(path, "w") as file:
        group = file.create_group("X")
        group.attrs["encoding-type"], group.attrs["shape"] = f"{encoding}_matrix", (N, G)
        group["data"], group["indices"] = values, indices
        group["indptr"] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        file["obs/_index"] = [f"c{i}" for i in range(N)]
        file["var/_index"] = [f"g{i}" for i in range(G)]
    want = want if encoding == "csr" else want.T
    with H5ad(path) as source:
        counts, library = collect(source)
        rows = source.matrix("X").read_rows(4, 33).toarray()
    np.testing.assert_array_equal(counts, expected(want)[0])
    np.testing.assert_array_equal(library, expected(want)[1])
    np.testing.assert_array_equal(rows, want[4:33])


@pytest.mark.parametrize("kind", KINDS)
def test_csr_blocks_hold_every_column(tmp_path: Path, kind: str) -> None:
    with H5ad(write(tmp_path / "a.h5ad", KINDS[kind](COUNTS))) as source:
        got = list(iter_csr_blocks(source, "X", block_size=8, threads=2))
    assert [start for start, _ in got] == list(range(0, N, 8))
    np.testing.assert_array_equal(np.vstack([rows.toarray() for _, rows in got]), COUNTS)


def test_no_map_keeps_all_columns() -> None:
    with open_source(anndata.AnnData(COUNTS)) as source:
        counts, _ = collect(source, columns=None, n_columns=G)
    np.testing.assert_array_equal(counts, COUNTS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(0, G), (3, G)])
def test_no_cells_and_no_counts(tmp_path: Path, kind: str, shape: tuple[int, int]) -> None:
    with H5ad(write(tmp_path / "a.h5ad", KINDS[kind](np.zeros(shape, np.float32)))) as source:
        got = list(iter_blocks(source, "X", block_size=4, columns=COLUMNS, n_columns=C, threads=2))
    assert sum(len(block.counts) for block in got) == shape[0]
    assert not any(block.counts.any() or block.library_size.any() for block in got)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_impossible_values_name_cell_and_gene(tmp_path: Path, kind: str, value: float) -> None:
    values = COUNTS.copy()
    values[41, 12] = value
    with H5ad(write(tmp_path / "a.h5ad", KINDS[kind](values))) as source:
        with pytest.raises(MatrixError, match=r"cell '41' \(row 41\) and gene '12'"):
            collect(source, threads=2)
        with pytest.raises(MatrixError, match="gene '12'"):
            list(iter_csr_blocks(source, "X", block_size=8))


def test_temporary_file_of_csc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.h5ad", sp.csc_matrix(COUNTS))
    with H5ad(path) as source:
        collect(source)
        file = source.matrix("X")._spilled.file  # type: ignore[attr-defined]
        assert not file.closed
    assert file.closed
    monkeypatch.setattr(csc.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with H5ad(path) as source, pytest.raises(InputError, match="TMPDIR"):
        collect(source)


def test_map_constants_differ() -> None:
    assert blocks.LEFT_OUT < blocks.NOT_USED < 0
