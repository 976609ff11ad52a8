"""Smoothing of sections against dense formulas, the vote against the paper's code, and spatial bundles end to end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from scrcl_infer.bundle import write_bundle
from scrcl_infer.contract import SpatialSpec
from scrcl_infer.errors import InputError
from scrcl_infer.h5ad import open_source
from scrcl_infer.pipeline import Model
from scrcl_infer.result import AssignOptions
from scrcl_infer.spatial import (
    Spots,
    find_nearest,
    make_spot_graph,
    read_spots,
    smooth_counts,
    smooth_expression,
    vote,
)
from scrcl_infer.target import Target
from tests.make_bundle import numpy_forward, random_weights, tiny_bundle

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "spatial.npz"
SPEC = SpatialSpec(n_neighbors=4, n_steps=3)


def one_section(places: NDArray[np.float64]) -> Spots:
    return Spots(places, np.zeros(len(places), dtype=np.int64))


def scatter(n: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).random((n, 2)) * 100


def section_query(n: int = 60, *, seed: int = 0) -> ad.AnnData:
    """Two sections that lie on top of each other, with the model's 40 genes and ten others."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(1.5, (n, 50)).astype(np.float32)
    names = [f"GENE{i}" for i in range(40)] + [f"OTHER{i}" for i in range(10)]
    obs = pd.DataFrame({"slice": np.where(np.arange(n) % 2, "left", "right")}, index=[f"spot{i}" for i in range(n)])
    adata = ad.AnnData(sp.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=names))
    adata.obsm["spatial"] = scatter(n, seed)
    return adata


def dense_smoothing(adata: ad.AnnData, spec: SpatialSpec) -> NDArray[np.float64]:
    """The formula, with n x n matrices and scikit-learn's neighbours."""
    counts = adata.X.toarray().astype(float)
    logged = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))[:, :40]
    smoothed = np.zeros_like(logged)
    for name in adata.obs["slice"].unique():
        rows = np.flatnonzero(adata.obs["slice"] == name)
        search = NearestNeighbors(n_neighbors=spec.n_neighbors).fit(adata.obsm["spatial"][rows])
        directed = search.kneighbors_graph().toarray()
        looped = np.maximum(directed, directed.T) + np.eye(len(rows))
        scale = np.diag(looped.sum(axis=1) ** -0.5)
        smoothed[rows] = np.linalg.matrix_power(scale @ looped @ scale, spec.n_steps) @ logged[rows]
    return smoothed


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(tiny_bundle(spatial=SPEC), sha256="", threads=1)


def test_graph_and_vote_are_those_of_the_papers_code() -> None:
    golden = np.load(GOLDEN)
    spots = one_section(golden["spatial"])
    np.testing.assert_array_equal(make_spot_graph(spots, n_neighbors=6).toarray(), golden["adj_6nn"])
    for n in (10, 50):
        np.testing.assert_array_equal(vote(golden["labels"], spots, n_voters=n), golden[f"refined_labels_{n}"])


@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 30), k=st.integers(1, 8), same=st.integers(0, 10), seed=st.integers(0, 100))
def test_nearest_are_others_and_none_is_nearer(n: int, k: int, same: int, seed: int) -> None:
    places = scatter(n, seed)
    places[: min(same, n)] = places[0]  # spots at one and the same place
    found = find_nearest(places, k)
    assert found.shape == (n, min(k, n - 1))
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    for i, others in enumerate(found):
        assert i not in others
        assert len(set(others)) == len(others)
        best = np.sort(np.delete(distances[i], i))[: len(others)]
        np.testing.assert_allclose(distances[i, others], best, atol=1e-9)


def test_a_vote_follows_the_majority_and_ties_go_to_the_nearest() -> None:
    spots = one_section(np.array([[0.0, 0], [1, 0], [2.5, 0], [4.5, 0]]))
    # Voters of spot 0, nearest first: 1, 2, 3.
    assert vote(np.array([9, 1, 2, 2]), spots, n_voters=3)[0] == 2
    assert vote(np.array([9, 1, 2, 3]), spots, n_voters=3)[0] == 1
    assert vote(np.array([9, 1, 2, 2]), spots, n_voters=0).tolist() == [9, 1, 2, 2]


def test_sections_do_not_vote_or_smooth_across() -> None:
    places, section = scatter(40), np.arange(40) % 2
    labels = np.where(section, 3, 5)
    np.testing.assert_array_equal(vote(labels, Spots(places, section), n_voters=6), labels)
    edges = make_spot_graph(Spots(places, section), n_neighbors=6).tocoo()
    np.testing.assert_array_equal(section[edges.row], section[edges.col])
    alone = Spots(scatter(3), np.array([0, 0, 1]))  # the only spot of its section
    assert make_spot_graph(alone, n_neighbors=2).toarray().tolist() == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert vote(np.array([1, 2, 7]), alone, n_voters=50).tolist() == [2, 1, 7]


def test_smoothing_is_the_dense_formula_whatever_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    adata = section_query()
    library = np.asarray(adata.X.sum(axis=1)).ravel()
    spots = Spots(adata.obsm["spatial"], (adata.obs["slice"] == "left").to_numpy(np.int64))
    counts, totals = smooth_counts(adata.X[:, :40].tocsr(), library, spots, SPEC)
    rate = counts.astype(float) * (1e4 / totals)
    np.testing.assert_allclose(np.log1p(rate), dense_smoothing(adata, SPEC), rtol=1e-5, atol=1e-6)
    graph, logged = make_spot_graph(spots, n_neighbors=4), sp.csr_matrix(adata.X[:, :40]).log1p()
    whole = smooth_expression(logged, graph, n_steps=2)
    np.testing.assert_array_equal(smooth_expression(logged, graph, n_steps=0), logged.toarray())
    monkeypatch.setattr("scrcl_infer.spatial.GENES_AT_ONCE", 7)
    np.testing.assert_array_equal(smooth_expression(logged, graph, n_steps=2), whole)


def test_a_spot_without_counts_dims_nobody() -> None:
    adata = section_query(30)
    spots = one_section(adata.obsm["spatial"])
    counts = adata.X.toarray()
    counts[4] = 0
    with_hole, _ = smooth_counts(sp.csr_matrix(counts[:, :40]), counts.sum(axis=1), spots, SPEC)
    assert with_hole[4].max() == 0
    keep = np.arange(30) != 4
    others = one_section(adata.obsm["spatial"][keep])
    without, _ = smooth_counts(sp.csr_matrix(counts[keep, :40]), counts[keep].sum(axis=1), others, SPEC)
    np.testing.assert_array_equal(with_hole[keep], without)
    with pytest.raises(InputError, match="30 spots but 29 places"):
        smooth_counts(sp.csr_matrix(counts[:, :40]), counts.sum(axis=1), others, SPEC)


def test_answers_are_the_networks_on_smoothed_expression(model: Model) -> None:
    adata = section_query()
    answers = model.assign(adata, options=AssignOptions(section="slice"))
    rates = np.expm1(dense_smoothing(adata, SPEC)).astype(np.float32)
    expected = numpy_forward(random_weights(), rates, np.full((60, 1), 1e4, np.float32))
    np.testing.assert_allclose(answers.embedding, expected["embedding"], atol=1e-4)
    assert answers.population.tolist() == [f"P{i + 1}" for i in expected["log_posterior"].argmax(axis=1)]
    together = model.assign(adata)
    assert np.abs(together.embedding - answers.embedding).max() > 1e-3, "sections must make a difference"


def test_each_section_is_answered_as_if_alone_whatever_blocks_and_threads(model: Model) -> None:
    adata = section_query()
    left = model.assign(adata[adata.obs["slice"] == "left"].copy())
    for block_size, threads in ((1, 1), (7, 2), (1000, 1)):
        options = AssignOptions(section="slice", block_size=block_size, threads=threads)
        both = model.assign(adata, options=options)
        np.testing.assert_array_equal(both.embedding[(adata.obs["slice"] == "left").to_numpy()], left.embedding)


def test_a_file_is_answered_as_the_same_data_in_memory(model: Model, tmp_path: Path) -> None:
    adata = section_query()
    adata.write_h5ad(tmp_path / "slice.h5ad")
    options = AssignOptions(section="slice", block_size=16)
    summary = model.assign_file(tmp_path / "slice.h5ad", Target(tmp_path / "out.h5ad"), options=options)
    written = ad.read_h5ad(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(written.obsm["X_scrcl"], model.assign(adata, options=options).embedding)
    assert summary.n_cells == 60
    np.testing.assert_array_equal(written.obsm["spatial"], adata.obsm["spatial"])


def test_coordinates_are_asked_for_in_words(model: Model) -> None:
    adata = section_query()
    bare = adata.copy()
    del bare.obsm["spatial"]
    with pytest.raises(InputError, match=r"spots are needed .* obsm is empty.*not trained with --spatial"):
        model.assign(bare)
    bare.obsm["X_pca"] = np.zeros((60, 3))
    with pytest.raises(InputError, match="obsm holds X_pca"):
        model.check(bare)
    adata.obsm["spatial"][7, 1] = np.nan
    with pytest.raises(InputError, match="no finite place for 1 spots, the first is row 7"):
        model.assign(adata)
    adata.obsm["spatial"] = np.zeros((60, 5))
    with pytest.raises(InputError, match=r"has shape \(60, 5\)"):
        model.assign(adata)


def test_every_spot_needs_a_section(model: Model) -> None:
    adata = section_query()
    adata.obs["slice"] = pd.Categorical(adata.obs["slice"]).set_categories(["left"])
    with pytest.raises(InputError, match=r"names no section for 30 spots, the first is row 0"):
        model.assign(adata, options=AssignOptions(section="slice"))
    with pytest.raises(InputError, match="slide"):
        model.assign(adata, options=AssignOptions(section="slide"))


def test_sections_on_top_of_each_other_are_asked_for(model: Model, tmp_path: Path) -> None:
    adata = section_query()

    def said(**options: str) -> list[str]:
        adata.write_h5ad(tmp_path / "slice.h5ad")
        target = Target(tmp_path / "out.tsv", force=True)
        summary = model.assign_file(tmp_path / "slice.h5ad", target, options=AssignOptions(**options))
        return [warning for warning in summary.warnings if "--section" in warning]

    (warning,) = said()
    assert "smoothed together" in warning
    assert warning.endswith("pass --section slice.")
    assert [w for w in model.assign(adata).summary.warnings if "--section" in w] == [warning]
    assert said(section="slice") == []
    together = adata.obsm["spatial"].copy()
    adata.obsm["spatial"] = together + 1000 * (adata.obs["slice"] == "left").to_numpy()[:, None]  # side by side
    assert said() == []
    adata.obsm["spatial"], adata.obs["slice"] = together, "one"
    assert said() == []


def test_sections_may_be_numbers() -> None:
    adata = section_query(6)
    adata.obs["slice"] = [2, 2, 10, 10, 2, 10]
    spots = read_spots(open_source(adata), section_key="slice")
    assert spots.section[0] == spots.section[4] != spots.section[2]
    assert len(set(spots.section)) == 2


def test_a_model_without_smoothing_knows_no_sections() -> None:
    plain = Model(tiny_bundle(), sha256="", threads=1)
    with pytest.raises(InputError, match="Leave out --section"):
        plain.assign(section_query(), options=AssignOptions(section="slice"))


def test_the_copy_says_how_it_was_smoothed(model: Model, tmp_path: Path) -> None:
    adata = section_query()
    adata.write_h5ad(tmp_path / "slice.h5ad")
    model.assign_file(tmp_path / "slice.h5ad", Target(tmp_path / "out.h5ad"), options=AssignOptions(section="slice"))
    said = ad.read_h5ad(tmp_path / "out.h5ad").uns["scrcl"]
    assert (said["section_key"], int(said["n_neighbors"]), int(said["n_steps"])) == ("slice", 4, 3)
    assert "n_steps" not in Model(tiny_bundle(), sha256="").describe(model.assign(adata).summary)


def test_the_command_takes_sections_and_asks_for_places(tmp_path: Path) -> None:
    bundle = write_bundle(tiny_bundle(spatial=SPEC), tmp_path / "model")
    adata = section_query()
    adata.write_h5ad(tmp_path / "slice.h5ad")
    del adata.obsm["spatial"]
    adata.write_h5ad(tmp_path / "bare.h5ad")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "scrcl_infer.cli", *arguments, "-m", str(bundle), "--threads", "1"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = run(str(tmp_path / "slice.h5ad"), "--section", "slice")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 61
    assert done.stdout != run(str(tmp_path / "slice.h5ad")).stdout
    for extra in ((), ("--dry-run",)):
        refused = run(str(tmp_path / "bare.h5ad"), *extra)
        assert refused.returncode == 3
        assert "The coordinates of the spots are needed in obsm['spatial']" in " ".join(refused.stderr.split())
