"""Gene graph, association and evidence against numpy and planted markers."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.stats import pearsonr
from sklearn.neighbors import NearestNeighbors

from scrcl_train import gene_structure
from scrcl_train.gene_structure import (
    N_NEIGHBORS,
    compute_association,
    compute_correlations,
    compute_count_shares,
    compute_evidence,
    compute_gene_graph,
    find_neighbours,
)
from scrcl_train.student_input import log_normalise
from tests.student_case import MARKERS, N_GENES, make_targets, make_world, teach


def logged_world() -> sp.csr_matrix:
    world = make_world()
    return log_normalise(world.counts, world.library_size)


def test_correlations_are_numpys() -> None:
    logged = logged_world()
    np.testing.assert_allclose(compute_correlations(logged), np.corrcoef(logged.toarray().T), atol=1e-6)


def test_a_gene_that_does_not_vary_correlates_with_nothing() -> None:
    values = np.random.default_rng(0).random((50, 4))
    values[:, 1] = 0.7
    values[:, 2] = 0.0
    correlation = compute_correlations(sp.csr_matrix(values))
    assert np.isfinite(correlation).all()
    assert not correlation[1].any()
    assert not correlation[:, 2].any()


def test_neighbours_are_the_nearest_of_standardised_genes() -> None:
    logged = logged_world().toarray()
    standardised = ((logged - logged.mean(axis=0)) / logged.std(axis=0)).T
    # for standardised genes the squared distance is 2 n (1 - correlation)
    expected = NearestNeighbors(n_neighbors=6).fit(standardised).kneighbors(return_distance=False)
    found = find_neighbours(compute_correlations(sp.csr_matrix(logged)), 6)
    assert (found == expected).mean() > 0.99


def test_equal_neighbours_come_by_index_and_none_is_the_gene_itself() -> None:
    assert find_neighbours(np.ones((4, 4), dtype=np.float32), 2).tolist() == [[1, 2], [0, 2], [0, 1], [0, 1]]


def test_association_is_the_correlation_with_the_way_to_the_population() -> None:
    world, logged = make_world(), logged_world()
    cells = make_targets(world, labelled=False).embedding.astype(np.float64)
    centroids = np.stack([cells[world.truth == k].mean(axis=0) for k in range(3)])
    association = compute_association(logged, cells.astype(np.float32), world.truth)
    dense = logged.toarray()
    for k, gene in ((0, 3), (1, 3), (2, 25), (2, 50)):
        place = cells @ (centroids[k] - centroids.mean(axis=0))
        assert association[k, gene] == pytest.approx(pearsonr(dense[:, gene], place)[0], abs=1e-5)


def test_planted_markers_drive_their_population() -> None:
    world = make_world()
    association = compute_association(logged_world(), make_targets(world, labelled=False).embedding, world.truth)
    assert association.shape == (3, N_GENES)
    for k in range(3):
        top = np.argsort(-association[k])[:MARKERS]
        assert set(top) == set(range(k * MARKERS, (k + 1) * MARKERS))


def test_one_population_is_driven_by_nothing() -> None:
    logged = logged_world()
    association = compute_association(logged, np.ones((logged.shape[0], 3), np.float32), np.zeros(logged.shape[0], int))
    assert not association.any()


def test_the_graph_is_a_csr_of_correlated_genes() -> None:
    world = make_world()
    embedding = np.random.default_rng(0).random((N_GENES, 4), dtype=np.float32)
    cells = make_targets(world, labelled=False).embedding
    graph = compute_gene_graph(world.counts, world.library_size, embedding, cells, world.truth)
    matrix = sp.csr_matrix((graph.correlations, graph.indices, graph.indptr), shape=(N_GENES, N_GENES))
    assert graph.indptr.dtype == graph.indices.dtype == np.int64
    assert graph.correlations.dtype == graph.association.dtype == np.float32
    assert (np.diff(graph.indptr) == N_NEIGHBORS).all()
    assert not matrix.diagonal().any()
    expected = np.corrcoef(log_normalise(world.counts, world.library_size).toarray().T)
    rows = np.repeat(np.arange(N_GENES), N_NEIGHBORS)
    np.testing.assert_allclose(graph.correlations, expected[rows, graph.indices], atol=1e-6)
    np.testing.assert_array_equal(graph.embedding, embedding)
    # a marker's neighbours are markers of the same population
    assert (graph.indices[: 5 * MARKERS] < MARKERS).mean() > 0.9


def test_many_cells_are_thinned_out_for_the_correlations(monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world()
    cells = make_targets(world, labelled=False).embedding
    embedding = np.zeros((N_GENES, 4), dtype=np.float32)
    monkeypatch.setattr(gene_structure, "MAX_CELLS", 100)
    graph = compute_gene_graph(world.counts, world.library_size, embedding, cells, world.truth)
    expected = np.corrcoef(log_normalise(world.counts[::4], world.library_size[::4]).toarray().T)
    np.testing.assert_allclose(graph.correlations[:5], expected[0, graph.indices[:5]], atol=1e-6)


def test_evidence_sums_to_one_and_rests_on_the_markers() -> None:
    world, student = teach(labelled=True)
    evidence = np.array(compute_evidence(student, world.counts, world.library_size))
    assert evidence.sum() == pytest.approx(1)
    assert (evidence >= 0).all()
    assert evidence[: 3 * MARKERS].sum() > 0.65


def test_evidence_is_the_share_of_the_hidden_variance_of_unrelated_genes() -> None:
    world, student = teach(labelled=True)
    weight = student.state_dict()["first.weight"].numpy()
    rate = world.counts.toarray().astype(np.float64) / np.reshape(world.library_size, (-1, 1)) * 1e4
    spread = np.round(58 * ((1 + rate) ** 0.125 - 1)).std(axis=0)
    expected = (np.linalg.norm(weight, axis=0) * spread) ** 2
    evidence = compute_evidence(student, world.counts, world.library_size)
    np.testing.assert_allclose(evidence, expected / expected.sum(), rtol=1e-4)


def test_evidence_is_spread_evenly_where_no_gene_varies() -> None:
    _, student = teach(labelled=True)
    alike = sp.csr_matrix(np.ones((5, N_GENES), dtype=np.float32))
    evidence = compute_evidence(student, alike, np.full(5, N_GENES, dtype=np.float32))
    np.testing.assert_allclose(evidence, 1 / N_GENES)


def test_count_shares_are_the_mean_shares_of_the_cells() -> None:
    world = make_world()
    dense = world.counts.toarray().astype(np.float64)
    expected = (dense / world.library_size.reshape(-1, 1)).mean(axis=0)
    shares = compute_count_shares(world.counts, world.library_size)
    np.testing.assert_allclose(shares, expected, rtol=5e-4)
    assert all(share == float(f"{share:.4g}") for share in shares)
