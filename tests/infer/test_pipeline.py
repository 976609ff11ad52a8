"""`scrcl_infer.pipeline`: a cell's whole way, against the encoder computed in numpy, and against itself."""

from __future__ import annotations

import hashlib
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import scipy.special
from numpy.typing import NDArray

import scrcl_infer
from scrcl_infer.bundle import bundle_sha256, write_bundle
from scrcl_infer.errors import GeneOverlapError, InputError, MatrixError, OutputError
from scrcl_infer.pipeline import Model, load
from scrcl_infer.result import Assignment, AssignOptions
from scrcl_infer.strangeness import compute_strangeness, refer
from scrcl_infer.target import STDOUT, Target
from tests.make_bundle import numpy_forward, random_weights, spaces_of, tiny_bundle

N = 53
EMPTY = 5
"""A cell without counts in the model's genes."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tiny_bundle(), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder, threads=1)


def query(n: int = N, seed: int = 3) -> ad.AnnData:
    """Counts of the model's 40 genes in another order, two of them missing, ten others beside them."""
    rng = np.random.default_rng(seed)
    genes = [f"GENE{i}" for i in range(2, 40)] + [f"OTHER{i}" for i in range(10)]
    rng.shuffle(genes)
    counts = rng.poisson(1.5, (n, len(genes))).astype(np.float32)
    if n > EMPTY:
        counts[EMPTY, [g.startswith("GENE") for g in genes]] = 0
    obs = pd.DataFrame({"donor": ["a"] * n}, index=[f"cell{i}" for i in range(n)])
    return ad.AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=genes))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("query") / "new.h5ad"
    query().write_h5ad(path, compression="gzip")
    return path


def in_model_order(adata: ad.AnnData) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    dense = adata.to_df()
    library = dense.sum(axis=1).to_numpy(np.float32)[:, None]
    return dense.reindex(columns=[f"GENE{i}" for i in range(40)], fill_value=0).to_numpy(np.float32), library


def same(a: Assignment, b: Assignment) -> None:
    for name in ("obs_names", "cell_type", "population", "confidence", "margin", "embedding", "map", "strangeness"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def test_answers_are_those_of_the_network_in_numpy(model: Model, path: Path) -> None:
    answers = model.assign(path)
    expected = numpy_forward(random_weights(), *in_model_order(query()))
    full = np.arange(N) != EMPTY
    np.testing.assert_allclose(answers.embedding[full], expected["embedding"][full], atol=1e-5)
    np.testing.assert_allclose(answers.map[full], expected["map"][full], atol=1e-4)
    posterior = scipy.special.softmax(expected["log_type_posterior"] / 1.5, axis=1)  # the bundle's temperature
    best = np.array([f"type {c}" for c in "ABCD"], dtype=object)[posterior.argmax(axis=1)]
    counts, _ = in_model_order(query())
    rejection = model.bundle.rejection
    assert rejection is not None
    strange = compute_strangeness(spaces_of(expected), np.count_nonzero(counts, axis=1), refer(rejection)) > 0
    assert 0 < strange[full].sum() < N / 2
    best[strange] = "unknown"
    np.testing.assert_array_equal(answers.cell_type[full], best[full])
    np.testing.assert_allclose(answers.confidence[full], posterior.max(axis=1)[full], atol=1e-5)
    assert answers.population[full].tolist() == [f"P{i + 1}" for i in expected["log_posterior"].argmax(axis=1)[full]]
    assert answers.obs_names.tolist() == [f"cell{i}" for i in range(N)]


def test_a_cell_without_counts_in_the_models_genes_is_unknown(model: Model, path: Path) -> None:
    answers = model.assign(path, options=AssignOptions(reject=False))
    assert (answers.cell_type[EMPTY], answers.population[EMPTY], answers.confidence[EMPTY]) == ("unknown", "unknown", 0)
    assert "unknown" not in np.delete(answers.cell_type, EMPTY)
    assert answers.summary.n_empty == answers.summary.n_unknown == 1


def test_a_file_of_empty_cells_is_answered_with_a_warning_that_says_so(model: Model, tmp_path: Path) -> None:
    adata = query()
    adata.X = adata.X * 0
    adata.write_h5ad(tmp_path / "q.h5ad")
    answers = model.assign(tmp_path / "q.h5ad")
    assert set(answers.cell_type) == {"unknown"}
    assert not answers.embedding.any()
    assert answers.summary.n_empty == N
    (warning,) = answers.summary.warnings
    assert warning.startswith("No cell has counts in the model's genes")
    assert "no value above 0" in answers.summary.matrix.reason


@pytest.mark.parametrize("kind", ["csc", "dense", "layer", "raw", "float64"])
def test_the_answer_does_not_depend_on_how_counts_are_stored(
    model: Model, path: Path, tmp_path: Path, kind: str
) -> None:
    adata = query()
    if kind == "csc":
        adata.X = adata.X.tocsc()
    elif kind == "dense":
        adata.X = adata.X.toarray()
    elif kind == "float64":
        adata.X = adata.X.astype(np.float64)
    elif kind == "layer":
        adata.layers["counts"] = adata.X.copy()
        adata.X = np.abs(np.random.default_rng(0).normal(size=adata.shape)).astype(np.float32)
    elif kind == "raw":
        adata.raw = adata.copy()
        adata = adata[:, :20].copy()
        adata.X = np.random.default_rng(0).normal(size=adata.shape).astype(np.float32)  # scaled, as scanpy leaves it
    adata.write_h5ad(tmp_path / "q.h5ad")
    answers = model.assign(tmp_path / "q.h5ad")
    same(answers, model.assign(path))
    assert answers.summary.matrix.where == {"layer": "layers/counts", "raw": "raw/X"}.get(kind, "X")


def test_logged_counts_are_taken_back(model: Model, path: Path, tmp_path: Path) -> None:
    adata = query()
    counts = adata.X.toarray()
    adata.X = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
    adata.write_h5ad(tmp_path / "q.h5ad")
    answers = model.assign(tmp_path / "q.h5ad")
    assert answers.summary.matrix.state == "log1p10k"
    np.testing.assert_allclose(answers.embedding, model.assign(path).embedding, atol=1e-4)


def test_a_path_and_an_anndata_give_the_same(model: Model, path: Path) -> None:
    adata = query()
    before = adata.copy()
    same(model.assign(adata), model.assign(str(path)))
    assert (adata.X != before.X).nnz == 0
    pd.testing.assert_frame_equal(adata.obs, before.obs)


def test_the_same_bytes_whatever_the_block_size_and_the_threads(folder: Path, path: Path, tmp_path: Path) -> None:
    found: dict[str, set[str]] = {}
    for block_size in (1, 7, 1000):
        for threads in (1, 2):
            for ending in (".h5ad", ".tsv", ".parquet", ".csv.gz"):
                out = tmp_path / f"{block_size}-{threads}{ending}"
                options = AssignOptions(block_size=block_size, threads=threads)
                load(folder).assign_file(path, Target(out), options=options)
                found.setdefault(ending, set()).add(hashlib.sha256(out.read_bytes()).hexdigest())
    assert {ending: len(sums) for ending, sums in found.items()} == dict.fromkeys(found, 1)


def test_a_cells_answer_does_not_depend_on_the_others(model: Model, path: Path) -> None:
    whole = model.assign(path)
    chosen = [40, 3, 17]
    part = model.assign(query()[chosen].copy())
    for name in ("cell_type", "population", "confidence", "margin", "embedding", "map", "strangeness"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[chosen])


def test_blocks_come_in_order_and_make_up_the_whole(model: Model, path: Path) -> None:
    blocks = list(model.iter_assign(path, options=AssignOptions(block_size=10)))
    assert [b.start for b in blocks] == [0, 10, 20, 30, 40, 50]
    whole = model.assign(path)
    np.testing.assert_array_equal(np.concatenate([b.embedding for b in blocks]), whole.embedding)
    assert blocks[0].population.dtype == blocks[0].cell_type.dtype == np.int32


def test_file_and_memory_agree(model: Model, path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.h5ad"
    before = path.read_bytes()
    summary = model.assign_file(path, Target(out))
    answers, written = model.assign(path), ad.read_h5ad(out)
    assert written.obs["scrcl_cell_type"].tolist() == answers.cell_type.tolist()
    assert written.obs["scrcl_population"].tolist() == answers.population.tolist()
    np.testing.assert_array_equal(written.obs["scrcl_margin"].to_numpy(), answers.margin)
    np.testing.assert_array_equal(written.obsm["X_scrcl"], answers.embedding)
    np.testing.assert_array_equal(written.obsm["X_scrcl_map"], answers.map)
    assert summary.cells_per_type == answers.summary.cells_per_type
    assert path.read_bytes() == before
    assert set(tmp_path.iterdir()) == {out}


def test_uns_names_the_model_and_how_the_query_was_read(model: Model, folder: Path, path: Path, tmp_path: Path) -> None:
    model.assign_file(path, Target(tmp_path / "out.h5ad"))
    uns = ad.read_h5ad(tmp_path / "out.h5ad").uns["scrcl"]
    assert (uns["model"], uns["model_sha256"]) == ("tiny", bundle_sha256(folder))
    assert (uns["matrix"], uns["matrix_state"]) == ("X", "counts")
    assert (uns["n_genes_found"], uns["n_genes_model"]) == (38, 40)
    assert uns["threshold"] == 0.3
    assert bool(uns["reject"]) is True


def test_the_summary_counts_cells(model: Model, path: Path) -> None:
    answers = model.assign(path)
    summary = answers.summary
    names, counts = np.unique(answers.cell_type.astype(str), return_counts=True)
    assert summary.cells_per_type == dict(zip(names.tolist(), counts.tolist(), strict=True))
    assert summary.n_cells == N
    assert summary.n_unknown == (answers.cell_type == "unknown").sum()
    assert summary.mean_confidence == pytest.approx(answers.confidence.mean(), rel=1e-6)
    per_population = summary.extra["populations"]
    assert sum(row["n_cells"] for row in per_population.values()) == N - 1  # all but the cell without counts
    for name, row in per_population.items():
        of_it = answers.population == name
        assert row == {"n_cells": of_it.sum(), "n_unknown": (of_it & (answers.cell_type == "unknown")).sum()}
    assert summary.genes.n_found == 38
    assert set(summary.genes.missing_top) == {"GENE0", "GENE1"}


def test_progress_is_told_after_each_block(model: Model, path: Path) -> None:
    seen: list[tuple[int, int]] = []
    model.assign(path, options=AssignOptions(block_size=20), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(20, N), (40, N), (N, N)]


def test_few_genes_warn_and_too_few_are_refused(model: Model) -> None:
    some = query()[:, [f"GENE{i}" for i in range(20, 38)]].copy()
    (warning,) = [w for w in model.assign(some).summary.warnings if "GENE0" in w]
    assert "evidence" in warning
    few = query()[:, ["GENE2", "OTHER1", "OTHER2"]].copy()
    with pytest.raises(GeneOverlapError, match="Only 1 of the model's 40 genes"):
        model.assign(few)
    assert model.assign(few, options=AssignOptions(min_overlap=0.0)).summary.genes.n_found == 1


def test_what_cannot_be_read_leaves_no_target(model: Model, tmp_path: Path) -> None:
    adata = query()
    adata.X = -adata.X
    adata.write_h5ad(tmp_path / "bad.h5ad")
    with pytest.raises(MatrixError):
        model.assign_file(tmp_path / "bad.h5ad", Target(tmp_path / "out.h5ad"))
    with pytest.raises(InputError, match="no file"):
        model.assign_file(tmp_path / "none.h5ad", Target(tmp_path / "out.h5ad"))
    assert [p.name for p in tmp_path.iterdir()] == ["bad.h5ad"]


def test_an_error_in_the_middle_leaves_no_target(model: Model, tmp_path: Path) -> None:
    query(4000).write_h5ad(tmp_path / "bad.h5ad")
    with h5py.File(tmp_path / "bad.h5ad", "r+") as file:
        indptr = file["X/indptr"][:]
        file["X/data"][indptr[2603]] = -1.0  # between the windows that choose_matrix looks at
    with pytest.raises(InputError, match="cell2603"):
        model.assign_file(tmp_path / "bad.h5ad", Target(tmp_path / "out.h5ad"), options=AssignOptions(block_size=100))
    assert [p.name for p in tmp_path.iterdir()] == ["bad.h5ad"]


def test_ctrl_c_leaves_no_target(model: Model, path: Path, tmp_path: Path) -> None:
    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    for name in ("out.h5ad", "out.tsv", "out.parquet"):
        with pytest.raises(KeyboardInterrupt):
            model.assign_file(path, Target(tmp_path / name), options=AssignOptions(block_size=10), progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_the_target_is_checked_before_the_query_is_read(model: Model, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="must end in one of"):
        model.assign_file(tmp_path / "does-not-exist.h5ad", Target(tmp_path / "out.xlsx"))


def test_check_reads_matrix_and_genes_only(model: Model, path: Path) -> None:
    matrix, genes = model.check(path)
    assert (matrix.where, matrix.state, genes.n_found) == ("X", "counts", 38)


def test_no_cells_is_no_error(model: Model, tmp_path: Path) -> None:
    adata = query()[:0].copy()
    adata.write_h5ad(tmp_path / "none.h5ad")
    summary = model.assign_file(tmp_path / "none.h5ad", Target(tmp_path / "out.tsv"))
    assert summary.n_cells == 0
    assert (tmp_path / "out.tsv").read_text().count("\n") == 1


def test_standard_output_is_the_table(
    model: Model, path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model.assign_file(path, Target(STDOUT))
    model.assign_file(path, Target(tmp_path / "out.tsv"))
    assert capsys.readouterr().out == (tmp_path / "out.tsv").read_text()


def test_load_finds_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRCL_MODELS", str(folder.parent))
    assert scrcl_infer.load("tiny").sha256 == bundle_sha256(folder)
