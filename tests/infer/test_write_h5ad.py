"""`scrcl_infer.write_h5ad`: what it writes is what anndata reads, and everything else stays."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scrcl_infer.atomic import HiddenFile
from scrcl_infer.errors import OutputError
from scrcl_infer.result import AssignedBlock
from scrcl_infer.target import DEFAULT_PREFIX, Labels, Target
from scrcl_infer.write_h5ad import H5adSink

N, DIM = 23, 5
TYPES = ("NK", "B", "T", "never seen", "unknown")
POPULATIONS = ("P1", "P2", "P3", "unknown")
ABOUT = {"model": "tiny", "n": 3, "share": 0.5, "matrix": {"where": "X"}, "notes": ["a", "b"], "none": []}


def answers(n: int = N, seed: int = 0) -> AssignedBlock:
    rng = np.random.default_rng(seed)
    cell_type = rng.integers(0, 3, n).astype(np.int32)
    cell_type[::7] = -1
    population = rng.integers(0, 3, n).astype(np.int32)
    population[:1] = -1
    return AssignedBlock(
        start=0,
        population=population,
        cell_type=cell_type,
        confidence=rng.random(n, dtype=np.float32),
        margin=rng.random(n, dtype=np.float32),
        embedding=rng.normal(size=(n, DIM)).astype(np.float32),
        map=rng.normal(size=(n, 2)).astype(np.float32),
    )


def cut(block: AssignedBlock, start: int, stop: int) -> AssignedBlock:
    parts = {k: v[start:stop] for k, v in vars(block).items() if v is not None and k != "start"}
    return AssignedBlock(start=start, **parts)


def query(n: int = N) -> ad.AnnData:
    rng = np.random.default_rng(1)
    counts = sp.csr_matrix(rng.poisson(1.0, (n, 6)).astype(np.float32))
    obs = pd.DataFrame(
        {"donor": pd.Categorical(rng.choice(["a", "b"], n)), "depth": rng.random(n), "kept": rng.random(n) > 0.5},
        index=[f"cell{i}" for i in range(n)],
    )
    var = pd.DataFrame({"symbol": list("ABCDEF")}, index=[f"g{i}" for i in range(6)])
    adata = ad.AnnData(counts, obs=obs, var=var)
    adata.layers["raw"] = counts.tocsc()
    adata.obsm["X_pca"] = rng.normal(size=(n, 3))
    adata.uns["note"] = {"a": 1}
    adata.obsp["dist"] = sp.eye(n, format="csr")
    return adata


@pytest.fixture
def source_file(tmp_path: Path) -> Path:
    path = tmp_path / "new.h5ad"
    query().write_h5ad(path, compression="gzip")
    return path


def write(source_file: Path, out: Path, blocks: list[AssignedBlock], **how: Any) -> tuple[str, ...]:
    n = sum(len(b.cell_type) for b in blocks)
    target = Target(out, **how)
    source: Any = SimpleNamespace(path=source_file, n_cells=n)
    labels = Labels(POPULATIONS, TYPES)
    with HiddenFile(out, force=target.force) as hidden:
        sink = H5adSink(target, source, labels, hidden=hidden, dim=DIM)
        for block in blocks:
            sink.write(block)
        sink.finish(ABOUT)
        return sink.warnings


def test_anndata_reads_the_answers_and_finds_the_rest_unchanged(source_file: Path, tmp_path: Path) -> None:
    out, block = tmp_path / "out.h5ad", answers()
    assert write(source_file, out, [block]) == ()
    got, before = ad.read_h5ad(out), ad.read_h5ad(source_file)
    assert list(got.obs.columns) == [
        *before.obs.columns,
        "scrcl_cell_type",
        "scrcl_population",
        "scrcl_confidence",
        "scrcl_margin",
    ]
    assert got.obs["scrcl_cell_type"].tolist() == [TYPES[i] for i in block.cell_type]  # -1 is the last: unknown
    assert got.obs["scrcl_population"].tolist() == [POPULATIONS[i] for i in block.population]
    np.testing.assert_array_equal(got.obs["scrcl_confidence"].to_numpy(), block.confidence)
    np.testing.assert_array_equal(got.obs["scrcl_margin"].to_numpy(), block.margin)
    np.testing.assert_array_equal(got.obsm["X_scrcl"], block.embedding)
    np.testing.assert_array_equal(got.obsm["X_scrcl_map"], block.map)
    assert got.obsm["X_scrcl"].dtype == got.obs["scrcl_margin"].dtype == np.float32
    pd.testing.assert_frame_equal(got.obs[before.obs.columns], before.obs)
    pd.testing.assert_frame_equal(got.var, before.var)
    assert (got.X != before.X).nnz == 0
    assert (got.layers["raw"] != before.layers["raw"]).nnz == 0
    np.testing.assert_array_equal(got.obsm["X_pca"], before.obsm["X_pca"])
    assert got.uns["note"] == before.uns["note"]


def test_categories_are_those_that_occur_in_the_models_order(source_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.h5ad"
    write(source_file, out, [answers()])
    column = ad.read_h5ad(out).obs["scrcl_cell_type"]
    assert list(column.cat.categories) == ["NK", "B", "T", "unknown"]
    assert not column.cat.ordered


def test_uns_says_how_the_answers_came_about(source_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.h5ad"
    write(source_file, out, [answers()])
    uns = ad.read_h5ad(out).uns["scrcl"]
    assert (uns["model"], uns["n"], uns["share"], uns["matrix"]) == ("tiny", 3, 0.5, {"where": "X"})
    assert list(uns["notes"]) == ["a", "b"]
    assert list(uns["obs_columns"]) == ["scrcl_cell_type", "scrcl_population", "scrcl_confidence", "scrcl_margin"]


def test_what_was_written_survives_anndatas_own_round_trip(source_file: Path, tmp_path: Path) -> None:
    out, again = tmp_path / "out.h5ad", tmp_path / "again.h5ad"
    write(source_file, out, [answers()])
    first = ad.read_h5ad(out)
    first.write_h5ad(again)
    second = ad.read_h5ad(again)
    pd.testing.assert_frame_equal(first.obs, second.obs)
    np.testing.assert_array_equal(first.obsm["X_scrcl"], second.obsm["X_scrcl"])


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_bytes_do_not_depend_on_the_blocks(source_file: Path, tmp_path: Path, size: int) -> None:
    block = answers()
    write(source_file, tmp_path / "whole.h5ad", [block])
    write(source_file, tmp_path / "parts.h5ad", [cut(block, i, min(i + size, N)) for i in range(0, N, size)])
    assert (tmp_path / "parts.h5ad").read_bytes() == (tmp_path / "whole.h5ad").read_bytes()


def test_an_earlier_runs_answers_are_replaced_and_said(source_file: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "1.h5ad", tmp_path / "2.h5ad"
    write(source_file, first, [answers()], obs_prefix="mine_")
    new = answers(seed=5)
    (warning,) = write(first, second, [new], obs_prefix="mine_")
    assert "obs/mine_cell_type" in warning
    assert "obsm/X_scrcl" in warning
    got = ad.read_h5ad(second)
    assert list(got.obs.columns).count("mine_cell_type") == 1
    np.testing.assert_array_equal(got.obs["mine_confidence"].to_numpy(), new.confidence)
    np.testing.assert_array_equal(got.obsm["X_scrcl"], new.embedding)


def test_columns_of_others_are_not_replaced_unless_forced(tmp_path: Path) -> None:
    path, out = tmp_path / "new.h5ad", tmp_path / "out.h5ad"
    adata = query()
    adata.obs["cell_type"] = "the truth"
    adata.write_h5ad(path)
    with pytest.raises(OutputError, match=r"already holds obs\['cell_type'\], .*--obs-prefix.*--force"):
        write(path, out, [answers()], obs_prefix="")
    assert list(tmp_path.iterdir()) == [path]
    write(path, out, [answers()], obs_prefix="", force=True)
    assert ad.read_h5ad(out).obs["cell_type"].tolist() != ["the truth"] * N
    assert ad.read_h5ad(path).obs["cell_type"].tolist() == ["the truth"] * N


@pytest.mark.parametrize(("part", "key"), [("obs", "scrcl_cell_type"), ("obsm", "X_scrcl")])
def test_what_others_wrote_under_our_names_is_kept_unless_forced(tmp_path: Path, part: str, key: str) -> None:
    """A hand-written column, or the embedding of a training run: nothing is lost without being asked."""
    path, out = tmp_path / "new.h5ad", tmp_path / "out.h5ad"
    adata = query()
    getattr(adata, part)[key] = np.zeros((adata.n_obs, 2)) if part == "obsm" else "by hand"
    adata.write_h5ad(path)
    with pytest.raises(OutputError, match=key):
        write(path, out, [answers()])
    write(path, out, [answers()], force=True)
    assert out.is_file()


def test_a_file_with_neither_columns_nor_obsm_nor_uns(tmp_path: Path) -> None:
    path, out = tmp_path / "bare.h5ad", tmp_path / "out.h5ad"
    ad.AnnData(np.ones((N, 2), np.float32)).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        del file["obsm"], file["uns"]
    write(path, out, [answers()])
    got = ad.read_h5ad(out)
    assert list(got.obs.columns) == [DEFAULT_PREFIX + c for c in ("cell_type", "population", "confidence", "margin")]
    assert got.obsm["X_scrcl_map"].shape == (N, 2)


@pytest.mark.filterwarnings("ignore:.*without encoding metadata")
def test_a_data_frame_of_anndata_0_7_takes_the_columns(source_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.h5ad"
    with h5py.File(source_file, "r+") as file:  # 0.1.0: codes beside their categories, tied by a reference
        obs = file["obs"]
        codes, categories = obs["donor/codes"][:], obs["donor/categories"][:]
        del obs["donor"]
        obs.create_group("__categories").create_dataset("donor", data=categories)
        obs.create_dataset("donor", data=codes).attrs["categories"] = obs["__categories/donor"].ref
        obs.attrs["encoding-version"] = "0.1.0"
    write(source_file, out, [answers()])
    got = ad.read_h5ad(out)
    assert got.obs["scrcl_cell_type"].tolist() == [TYPES[i] for i in answers().cell_type]
    assert set(got.obs["donor"]) == {"a", "b"}


def test_obs_of_the_oldest_files_is_refused_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "old.h5ad"
    with h5py.File(path, "w") as file:
        file["X"] = np.ones((N, 2), np.float32)
        file["obs"] = np.array([(b"c",)] * N, dtype=[("index", "S3")])
    with pytest.raises(OutputError, match=r"'obs' is stored as files older than anndata 0\.7 .*-o answers\.tsv"):
        write(path, tmp_path / "out.h5ad", [answers()])
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_no_cells(tmp_path: Path) -> None:
    path, out = tmp_path / "none.h5ad", tmp_path / "out.h5ad"
    ad.AnnData(np.ones((0, 2), np.float32)).write_h5ad(path)
    write(path, out, [answers(0)])
    got = ad.read_h5ad(out)
    assert got.obsm["X_scrcl"].shape == (0, DIM)
    assert list(got.obs["scrcl_cell_type"].cat.categories) == []


def test_more_types_than_a_byte_can_number(source_file: Path, tmp_path: Path) -> None:
    names = tuple(f"T{i}" for i in range(300))
    block = answers()
    block.cell_type[:] = np.arange(N) + 270
    out = tmp_path / "out.h5ad"
    source: Any = SimpleNamespace(path=source_file, n_cells=N)
    with HiddenFile(out, force=False) as hidden:
        sink = H5adSink(Target(out), source, Labels(POPULATIONS, (*names, "unknown")), hidden=hidden, dim=DIM)
        sink.write(block)
        sink.finish({})
    assert ad.read_h5ad(out).obs["scrcl_cell_type"].tolist() == [f"T{i}" for i in range(270, 293)]


def test_uns_takes_only_plain_values(source_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.h5ad"
    source: Any = SimpleNamespace(path=source_file, n_cells=N)
    with HiddenFile(out, force=False) as hidden:
        sink = H5adSink(Target(out), source, Labels(POPULATIONS, TYPES), hidden=hidden, dim=DIM)
        with pytest.raises(TypeError, match="not object"):
            sink.finish({"bad": object()})
        sink.close()
    assert not out.exists()


@pytest.mark.parametrize(("number", "fits"), [(errno.EOPNOTSUPP, True), (errno.ENOSPC, False)])
def test_space_is_reserved_where_the_file_system_can(
    source_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, number: int, fits: bool
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    out = tmp_path / "out.h5ad"
    if fits:
        write(source_file, out, [answers()])
        assert ad.read_h5ad(out).n_obs == N
        return
    with pytest.raises(OutputError, match="No space left"):
        write(source_file, out, [answers()])
    assert list(tmp_path.iterdir()) == [source_file]


def test_no_reserved_space_is_left_over(source_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.h5ad"
    write(source_file, out, [answers()])
    assert out.stat().st_size < source_file.stat().st_size + 40_000  # a megabyte was reserved
