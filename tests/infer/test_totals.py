"""`scrcl_infer.totals`: totals of files that were cut to chosen genes, against those of the whole files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from scrcl_infer import apply_assignment, load
from scrcl_infer.blocks import RowBlock
from scrcl_infer.bundle import write_bundle
from scrcl_infer.cli import app
from scrcl_infer.genes import GeneMatch
from scrcl_infer.h5ad import open_source
from scrcl_infer.look import look_at
from scrcl_infer.pipeline import Model
from scrcl_infer.result import AssignOptions, GeneReport
from scrcl_infer.target import Target
from scrcl_infer.totals import are_chosen, estimate_totals, sum_shares
from tests.make_bundle import numpy_forward, random_weights, tiny_bundle

N_GENES, N_TRAINED = 40, 400
"""Genes of the model, and of the data that it was trained on."""
SHARE = 0.6
"""Of a cell's counts that the model's genes hold by the tiny bundle's table."""


SHALLOW = (20, 200)
"""Counts of cells of which each shows some gene once, as of single cells."""


def trained_on(n_genes: int = N_TRAINED, **changes: object) -> Model:
    bundle = tiny_bundle()
    manifest = replace(bundle.manifest, provenance=replace(bundle.manifest.provenance, n_genes=n_genes))
    manifest = replace(manifest, genes=replace(manifest.genes, **changes))
    return Model(replace(bundle, manifest=manifest), sha256="", threads=1)


def whole_file(n: int = 200, seed: int = 0, *, depth: tuple[float, float] = (200, 4000)) -> ad.AnnData:
    """All 400 genes, of which the model's hold the shares that its table says."""
    rng = np.random.default_rng(seed)
    shares = np.array(tiny_bundle().manifest.genes.count_shares)
    profile = np.concatenate([shares, np.full(N_TRAINED - N_GENES, (1 - SHARE) / (N_TRAINED - N_GENES))])
    depths = rng.uniform(*depth, n)
    names = [f"GENE{i}" for i in range(N_GENES)] + [f"OTHER{i}" for i in range(N_TRAINED - N_GENES)]
    counts = rng.poisson(depths[:, None] * profile).astype(np.float32)
    return ad.AnnData(
        sp.csr_matrix(counts), obs=pd.DataFrame(index=[f"c{i}" for i in range(n)]), var=pd.DataFrame(index=names)
    )


def total(adata: ad.AnnData) -> np.ndarray:
    return np.asarray(adata.X.sum(axis=1)).ravel()


def test_estimated_totals_are_those_of_the_whole_file() -> None:
    model, whole = trained_on(), whole_file()
    for chosen in (slice(0, 40), slice(0, 12), slice(20, 40)):
        cut = whole[:, chosen].copy()
        found = np.isin([f"GENE{i}" for i in range(N_GENES)], cut.var_names)
        share = sum_shares(model.manifest, found)
        assert share == pytest.approx(sum(np.array(model.manifest.genes.count_shares)[found]))
        rows = RowBlock(0, cut.X.toarray(), total(cut)[:, None])
        (block,) = estimate_totals(iter([rows]), share)
        ratio = block.library_size[:, 0] / total(whole)
        error = 1 / np.sqrt(total(cut))  # of a Poisson count
        assert abs(np.mean(ratio) - 1) < 4 * error.mean() / np.sqrt(len(ratio))
        assert (np.abs(ratio - 1) < 6 * error).all()
        assert block.counts is rows.counts


def test_no_total_is_below_the_sum_of_what_is_there() -> None:
    counts = np.array([[1.0, 1.0], [30.0, 10.0]], dtype=np.float32)
    (block,) = estimate_totals(iter([RowBlock(0, counts, np.array([[20.0], [50.0]], np.float32))]), 0.5)
    assert block.library_size.tolist() == [[20.0], [80.0]]


def test_a_cut_file_is_answered_with_the_estimated_totals() -> None:
    cut = whole_file()[:, :30].copy()
    cut.X[7] = 0
    answers = trained_on().assign(cut)
    counts = np.zeros((cut.n_obs, N_GENES), np.float32)
    counts[:, :30] = cut.X.toarray()
    share = sum(tiny_bundle().manifest.genes.count_shares[:30])
    expected = numpy_forward(random_weights(), counts, counts.sum(axis=1, keepdims=True) / share)
    full = np.arange(cut.n_obs) != 7
    np.testing.assert_allclose(answers.embedding[full], expected["embedding"][full], atol=1e-5)
    assert answers.cell_type[7] == "unknown"
    assert answers.summary.genes.count_share == pytest.approx(share)
    (warning,) = (text for text in answers.summary.warnings if "total is estimated" in text)
    assert "holds 30 genes, the training data held 400" in warning
    assert f"{share:.1%}" in warning
    halves = [trained_on().assign(cut[rows].copy()) for rows in (slice(0, 77), slice(77, None))]
    np.testing.assert_array_equal(np.concatenate([half.embedding for half in halves]), answers.embedding)
    np.testing.assert_array_equal(np.concatenate([half.strangeness for half in halves]), answers.strangeness)
    small = trained_on().assign(cut, options=AssignOptions(block_size=13))
    np.testing.assert_array_equal(small.embedding, answers.embedding)


def test_the_answers_for_a_cut_file_are_nearer_to_those_for_the_whole() -> None:
    whole = whole_file()
    cut = whole[:, :N_GENES].copy()
    right = trained_on().assign(whole).embedding
    estimated, own = (model.assign(cut).embedding for model in (trained_on(), trained_on(count_shares=())))
    assert np.linalg.norm(estimated - right) < 0.5 * np.linalg.norm(own - right)


@pytest.mark.parametrize(
    "why", ["whole", "a third", "at random", "logarithms", "older bundle", "trained on as few", "genes without counts"]
)
def test_the_totals_of_other_files_are_their_own(why: str) -> None:
    model, adata = trained_on(), whole_file()
    names = np.array(adata.var_names)
    if why == "a third":
        adata = adata[:, :134].copy()
    elif why == "at random":
        adata = adata[:, ::10].copy()
        assert adata.n_vars < N_TRAINED / 3
    elif why == "logarithms":
        adata = logged(adata, 1e4)[:, :N_GENES].copy()
    elif why == "older bundle":
        model, adata = trained_on(count_shares=()), adata[:, :N_GENES].copy()
    elif why == "trained on as few":
        model, adata = trained_on(N_GENES), adata[:, :30].copy()
    elif why == "genes without counts":
        model, adata = trained_on(count_shares=(0.0,) * 30 + (0.06,) * 10), adata[:, :30].copy()
    answers = model.assign(adata, options=AssignOptions(min_overlap=0.0))
    assert answers.summary.genes.count_share is None
    assert not any("estimated" in text for text in answers.summary.warnings)
    if why == "at random":
        shown = np.isin(names[:N_GENES], adata.var_names)
        counts = np.zeros((adata.n_obs, N_GENES), np.float32)
        counts[:, shown] = adata[:, names[:N_GENES][shown]].X.toarray()
        expected = numpy_forward(random_weights(), counts, total(adata)[:, None])
        full = counts.any(axis=1)
        np.testing.assert_allclose(answers.embedding[full], expected["embedding"][full], atol=1e-5)


def logged(adata: ad.AnnData, target: float) -> ad.AnnData:
    adata = adata.copy()
    adata.X.data = np.log1p(adata.X.data * np.repeat(target / total(adata), np.diff(adata.X.indptr)))
    return adata


@pytest.mark.parametrize("target", [300.0, 2214.0, 10_000.0, 60_000.0, 1_000_000.0])
@pytest.mark.parametrize("n_left", [40, 15])
def test_the_total_of_cut_logarithms_is_found(target: float, n_left: int) -> None:
    whole = logged(whole_file(depth=SHALLOW), target)
    cut = whole[:, :n_left].copy()
    answers = trained_on().assign(cut)
    matrix = answers.summary.matrix
    assert matrix.totals == "assumed"
    if target in (1e4, 1e6):
        assert matrix.target_sum == target
        assert "is taken for the total" not in matrix.reason
    else:
        assert matrix.target_sum == pytest.approx(target, rel=0.1)
        assert f"{matrix.target_sum:,.0f} is taken for the total" in matrix.reason
    assert answers.summary.genes.count_share is None
    if n_left == N_GENES:
        right = trained_on().assign(whole)
        assert right.summary.matrix.target_sum == pytest.approx(target, rel=1e-3)
        np.testing.assert_allclose(answers.embedding, right.embedding, atol=0.05)


@pytest.mark.parametrize("n_left", [40, 15])
def test_logarithms_of_counts_and_those_scaled_once_cut_are_taken_as_counts_are(n_left: int) -> None:
    counts = whole_file(depth=SHALLOW)[:, :n_left].copy()
    counts = counts[total(counts) > 0].copy()
    expected = trained_on().assign(counts)
    unscaled, rescaled = counts.copy(), logged(counts, 1e4)
    unscaled.X.data = np.log1p(unscaled.X.data)
    for adata in (unscaled, rescaled):
        answers = trained_on().assign(adata)
        assert answers.summary.matrix.totals == "summed"
        assert answers.summary.genes.count_share == expected.summary.genes.count_share
        np.testing.assert_allclose(answers.embedding, expected.embedding, atol=1e-4)


@pytest.mark.parametrize("factor", [0.4, 1.0, 30.0])
def test_whole_cells_scaled_by_factors_of_their_own_are_taken_as_counts_are(factor: float) -> None:
    """As by size factors of pools, or by totals without the genes that are expressed most."""
    counts = whole_file(depth=SHALLOW)
    adata = counts.copy()
    factors = factor * np.random.default_rng(1).uniform(6_000, 14_000, adata.n_obs) / total(adata)
    adata.X.data = np.log1p(adata.X.data * np.repeat(factors, np.diff(adata.X.indptr)))
    answers = trained_on().assign(adata)
    assert answers.summary.matrix.target_sum is None
    assert answers.summary.matrix.totals == "summed"
    np.testing.assert_allclose(answers.embedding, trained_on().assign(counts).embedding, atol=1e-4)


def test_logarithms_of_corrected_counts_are_weighed_too() -> None:
    """Of what is left once a background was taken off no whole multiples are told: base and total are guessed first."""
    counts = whole_file(depth=(20, 60))
    adata, rng = counts.copy(), np.random.default_rng(1)
    factors = np.repeat(rng.uniform(15, 25, adata.n_obs), np.diff(adata.X.indptr))
    adata.X.data = np.log1p(adata.X.data * factors * np.exp(rng.normal(0, 0.05, adata.X.nnz))).astype(np.float32)
    assert look_at(open_source(adata), "X").totals == "guessed"
    answers = trained_on().assign(adata)
    assert (answers.summary.matrix.totals, answers.summary.matrix.target_sum) == ("summed", None)
    np.testing.assert_allclose(answers.embedding, trained_on().assign(counts).embedding, atol=0.05)


def test_the_total_of_logarithms_is_left_alone_where_nothing_speaks_against_it() -> None:
    whole = logged(whole_file(depth=SHALLOW), 2214.0)
    at_random, older = whole[:, ::10].copy(), trained_on(count_shares=())
    assert trained_on().assign(at_random, options=AssignOptions(min_overlap=0.0)).summary.matrix.target_sum == 1e4
    assert older.assign(whole[:, :N_GENES].copy()).summary.matrix.target_sum == 1e4
    told = AssignOptions(input_state="log1p10k")
    assert trained_on().assign(whole[:, :N_GENES].copy(), options=told).summary.matrix.target_sum == 1e4


@given(st.sets(st.integers(0, N_GENES - 1), min_size=1), st.integers(0, 500))
@settings(max_examples=100, deadline=None)
def test_genes_are_chosen_where_few_are_left_and_many_of_them_the_models(genes: set[int], n_others: int) -> None:
    manifest = trained_on().manifest
    found, n_query = np.isin(np.arange(N_GENES), list(genes)), len(genes) + n_others
    report = GeneReport(N_GENES, len(genes), 1.0, "", 0, 0, (), n_query=n_query)
    expected = n_query < N_TRAINED / 3 and len(genes) / N_GENES >= 1.5 * n_query / N_TRAINED
    assert are_chosen(manifest, GeneMatch(np.zeros(0, np.int32), found, report)) == expected
    share = sum_shares(manifest, found)
    assert share == pytest.approx(sum(manifest.genes.count_shares[g] for g in genes))
    assert 0 < share <= 1


def test_it_is_said_wherever_answers_go(tmp_path: Path) -> None:
    model, cut = trained_on(), whole_file()[:, :30].copy()
    cut.write_h5ad(tmp_path / "cut.h5ad")
    summary = model.assign_file(tmp_path / "cut.h5ad", Target(tmp_path / "out.h5ad"))
    share = summary.genes.count_share
    assert share is not None
    assert ad.read_h5ad(tmp_path / "out.h5ad").uns["scrcl"]["count_share"] == share
    apply_assignment(cut, model.assign(cut))
    assert cut.uns["scrcl"]["count_share"] == share
    write_bundle(model.bundle, tmp_path / "tiny")
    told = CliRunner().invoke(app, [str(tmp_path / "cut.h5ad"), "-m", str(tmp_path / "tiny"), "--dry-run"])
    assert told.exit_code == 0
    assert "total is estimated" in told.stderr


@pytest.mark.realdata
def test_blood_cells_cut_to_their_variable_genes_are_known(real_data: Callable[[str], Path]) -> None:
    """`human-pbmc`'s own cells; with the totals of the file and zeros for what it lacks 1,891 of them were unknown."""
    import scanpy as sc

    adata = ad.read_h5ad(real_data("pbmc3k"))
    logged = adata.copy()
    sc.pp.normalize_total(logged, target_sum=1e4)
    sc.pp.log1p(logged)
    sc.pp.highly_variable_genes(logged, n_top_genes=2000, flavor="seurat")
    cut = adata[:, logged.var["highly_variable"].to_numpy()].copy()
    answers = load("human-pbmc").assign(cut)
    assert answers.summary.n_unknown < 0.05 * cut.n_obs
    labels = cut.obs["cell_type1"].to_numpy(str)
    known = answers.cell_type != "unknown"
    assert (answers.cell_type[known] == labels[known]).mean() > 0.9


@pytest.mark.realdata
def test_sorted_blood_cells_without_ribosomal_genes_are_known(real_data: Callable[[str], Path]) -> None:
    adata = ad.read_h5ad(real_data("Zheng_FACS_800"))
    cut = adata[:, ~adata.var_names.str.match("^RP[LS]")].copy()
    whole, answers = (load("human-pbmc").assign(cells) for cells in (adata, cut))
    assert len(answers.summary.genes.stand_ins) >= 5
    assert answers.summary.n_unknown < 0.05 * cut.n_obs
    assert (answers.cell_type == whole.cell_type).mean() > 0.9
