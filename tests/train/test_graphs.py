"""Graphs against the golden spot graph, scikit-learn, and dense formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors, kneighbors_graph

from scrcl_infer.errors import InputError
from scrcl_train.graphs import (
    add_loops,
    gcn_normalise,
    gene_graph,
    gram,
    join_neighbors,
    knn_graph,
    nearest_neighbors,
    smooth,
    spot_graph,
)

GOLDEN = Path(__file__).parent.parent / "data" / "golden"


def test_spot_graph_is_the_golden_one() -> None:
    golden = np.load(GOLDEN / "spatial.npz")
    graph = spot_graph(golden["spatial"], n_neighbors=6)
    np.testing.assert_array_equal(graph.toarray(), golden["adj_6nn"])


def test_no_edge_joins_two_sections() -> None:
    spots = np.random.default_rng(0).random((60, 2))
    section = np.repeat(["a", "b"], 30)
    shuffled = np.random.default_rng(1).permutation(60)
    graph = spot_graph(spots[shuffled], n_neighbors=4, section=section[shuffled]).tocoo()
    assert np.all(section[shuffled][graph.row] == section[shuffled][graph.col])
    alone = spot_graph(spots[:30], n_neighbors=4).toarray()
    both = spot_graph(spots, n_neighbors=4, section=section).toarray()
    np.testing.assert_array_equal(both[:30, :30], alone)


@pytest.mark.parametrize("cosine", [True, False])
def test_neighbours_are_scikit_learns(*, cosine: bool) -> None:
    points = np.random.default_rng(2).normal(size=(80, 7)).astype(np.float32)
    directed = kneighbors_graph(points, 5, metric="cosine" if cosine else "euclidean").toarray()
    graph = knn_graph(points, n_neighbors=5, cosine=cosine)
    np.testing.assert_array_equal(graph.toarray(), np.maximum(directed, directed.T))


def test_nearest_come_first_and_joining_them_goes_both_ways() -> None:
    points = np.random.default_rng(5).normal(size=(50, 4))
    found = nearest_neighbors(points, n_neighbors=6, cosine=False)
    distance = np.linalg.norm(points[:, None] - points, axis=2)
    np.testing.assert_array_equal(found, np.argsort(distance, axis=1)[:, 1:7])
    joined = join_neighbors(np.array([[1], [2], [1], [1]])).toarray()
    np.testing.assert_array_equal(joined, [[0, 1, 0, 0], [1, 0, 1, 1], [0, 1, 0, 0], [0, 1, 0, 0]])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), n_points=st.integers(2, 25), n_neighbors=st.integers(1, 30))
def test_graph_is_symmetric_without_loops_even_among_duplicates(seed: int, n_points: int, n_neighbors: int) -> None:
    points = np.random.default_rng(seed).integers(0, 2, size=(n_points, 2)).astype(float)
    graph = knn_graph(points, n_neighbors=n_neighbors, cosine=False)
    assert (graph != graph.T).nnz == 0
    assert graph.diagonal().sum() == 0
    assert set(graph.data) == {1}
    assert np.all(np.diff(graph.indptr) >= min(n_neighbors, n_points - 1))


def test_approximate_neighbours_are_nearly_the_exact_ones_and_repeatable() -> None:
    points = np.random.default_rng(4).normal(size=(1200, 8)).astype(np.float32)
    points[1] = points[0]  # a duplicate must not lose an edge
    exact = knn_graph(points, n_neighbors=10, cosine=True)
    found = knn_graph(points, n_neighbors=10, cosine=True, exact_below=100, seed=3)
    again = knn_graph(points, n_neighbors=10, cosine=True, exact_below=100, seed=3)
    assert found.multiply(exact).nnz / exact.nnz > 0.95
    assert found.diagonal().sum() == 0
    assert (found != again).nnz == 0


def test_gene_graph_is_scikit_learns_with_the_gene_itself() -> None:
    inputs = np.random.default_rng(5).normal(size=(50, 30)).astype(np.float32)
    neighbors = NearestNeighbors(n_neighbors=5).fit(inputs.T).kneighbors(inputs.T, return_distance=False)
    graph = gene_graph(inputs, n_neighbors=5)
    for gene in range(30):
        assert set(graph[[gene]].indices) == set(neighbors[gene])
    np.testing.assert_array_equal(graph.diagonal(), 1)


def test_gene_graph_of_sparse_counts_is_that_of_dense_ones() -> None:
    counts = np.random.default_rng(6).poisson(0.5, size=(40, 20)).astype(np.float32)
    dense, sparse = gene_graph(counts, n_neighbors=5), gene_graph(sp.csr_matrix(counts), n_neighbors=5)
    assert (dense != sparse).nnz == 0


def test_gram_in_blocks() -> None:
    matrix = np.random.default_rng(7).normal(size=(25, 6)).astype(np.float32)
    np.testing.assert_allclose(gram(matrix, block_rows=4), matrix.T.astype(float) @ matrix, rtol=1e-5)


def test_smoothing_is_the_golden_one() -> None:
    golden = np.load(GOLDEN / "forward.npz")
    graph = sp.csr_matrix(golden["adj"])
    np.testing.assert_allclose(smooth(golden["counts"], graph, steps=3), golden["smoothed_3"], rtol=1e-9)
    np.testing.assert_allclose(smooth(golden["counts"], graph, steps=1), golden["smoothed_1"], rtol=1e-9)
    np.testing.assert_array_equal(smooth(golden["counts"], graph, steps=0), golden["counts"])


def test_directed_messages_run_from_row_to_column() -> None:
    # Gene 0 lists genes 0 and 1; gene 1 lists itself: gene 1 receives from both, gene 0 from itself.
    directed = sp.csr_matrix(np.array([[1.0, 1.0], [0.0, 1.0]]))
    np.testing.assert_allclose(gcn_normalise(directed).toarray(), [[1.0, 0.0], [2**-0.5, 0.5]])


def test_loops_are_added_once() -> None:
    graph = sp.csr_matrix(np.array([[0, 1], [1, 0]], dtype=np.float32))
    np.testing.assert_array_equal(add_loops(graph).toarray(), np.ones((2, 2)))


def test_too_few_points_are_refused() -> None:
    with pytest.raises(InputError, match="at least two cells; found 1"):
        knn_graph(np.zeros((1, 3)), n_neighbors=2, cosine=True)
    with pytest.raises(InputError, match="3 spots but 2 section names"):
        spot_graph(np.zeros((3, 2)), n_neighbors=1, section=np.array(["a", "b"]))
