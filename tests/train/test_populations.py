"""Populations in data whose groups are known; centroids against plain numpy."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestCentroid

from scrcl_infer.errors import TrainingError
from scrcl_train.consensus import ConsensusTree, Views, make_embedding_views, unit_rows
from scrcl_train.graphs import nearest_neighbors
from scrcl_train.populations import (
    Populations,
    cluster_embedding,
    cut_with_guard,
    find_populations,
    fit_centroids,
    follow_neighbors,
    order_by_size,
    redraw_borders,
    settle,
    vote,
)


def make_groups(
    sizes: tuple[int, ...], *, dim: int = 12, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    middle = np.linalg.qr(rng.normal(size=(dim, dim)))[0][: len(sizes)]
    return (middle[truth] + rng.normal(0, 0.08, (truth.size, dim))).astype(np.float32), truth


def find(embedding: NDArray[np.float32], n_populations: int | None = None, *, seed: int = 0) -> Populations:
    """Find populations in one embedding, which also stands in for what a teacher has learned."""
    views = dataclasses.replace(make_embedding_views(embedding), learned=embedding)
    return find_populations(views, n_populations=n_populations, seed=seed)


@pytest.mark.parametrize("sizes", [(150, 100, 50), (240, 20, 20), (60, 60, 60, 60, 60)])
def test_known_groups_are_found(sizes: tuple[int, ...]) -> None:
    embedding, truth = make_groups(sizes)
    found = find(embedding, len(sizes))
    assert found.n_populations == len(sizes)
    assert not found.chosen
    assert adjusted_rand_score(truth, found.labels) > 0.99


def test_clear_groups_are_counted() -> None:
    sizes = (60, 60, 60, 60, 60, 50, 40)
    embedding, truth = make_groups(sizes)
    found = find(embedding)
    assert found.chosen
    assert found.n_populations == len(sizes)
    assert adjusted_rand_score(truth, found.labels) > 0.99


def test_stray_cells_are_no_population() -> None:
    embedding, truth = make_groups((150, 100, 60))
    stray = np.array([3, 160, 260])
    embedding[stray] = np.linalg.qr(np.random.default_rng(9).normal(size=(12, 12)))[0][-3:] * 5
    found = find(embedding, 3)
    clean = np.setdiff1d(np.arange(truth.size), stray)
    assert adjusted_rand_score(truth[clean], found.labels[clean]) > 0.99
    assert np.bincount(found.labels).min() > 50


def test_the_same_seed_gives_the_same_groups_where_they_are_not_clear() -> None:
    cloud = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    first, second = (find(cloud, 7, seed=3).labels for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_the_answer_does_not_depend_on_the_seed_where_groups_are_clear() -> None:
    embedding, _ = make_groups((150, 100, 50))
    first, second = (find(embedding, 3, seed=seed).labels for seed in (0, 1))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("wanted", [1, 2, 40, 150, 200])
def test_as_many_as_asked_for(wanted: int) -> None:
    """Also more than there are micro-clusters, a third of the cells."""
    cloud = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    found = find(cloud, wanted)
    assert np.array_equal(np.unique(found.labels), np.arange(wanted))


@pytest.mark.parametrize("n_cells", [2, 3, 5])
@pytest.mark.parametrize("wanted", [None, 1, 2])
def test_a_handful_of_cells(n_cells: int, wanted: int | None) -> None:
    cloud = np.random.default_rng(0).normal(size=(n_cells, 3)).astype(np.float32)
    found = find(cloud, wanted)
    assert found.labels.shape == (n_cells,)
    assert found.n_populations == wanted or wanted is None


@pytest.mark.parametrize("wanted", [0, -1, 51])
@pytest.mark.parametrize("group", [find, lambda emb, k: cluster_embedding(emb, n_populations=k)])
def test_a_number_that_cannot_be_is_refused(wanted: int, group: Callable[..., Populations]) -> None:
    with pytest.raises(TrainingError, match=f"{wanted} populations were asked for"):
        group(np.eye(50, dtype=np.float32), wanted)


@pytest.mark.parametrize("group", [find, lambda emb, k: cluster_embedding(emb, n_populations=k)])
def test_more_groups_than_cells_that_differ_are_refused(group: Callable[..., Populations]) -> None:
    twins = np.repeat(np.eye(2, dtype=np.float32), 30, axis=0)
    with pytest.raises(TrainingError, match="only 2 cells differ"):
        group(twins, 3)


def test_copies_of_one_cell_stay_together() -> None:
    embedding, truth = make_groups((100, 80, 60))
    embedding[:40] = embedding[0]
    found = find(embedding, 3)
    assert len(set(found.labels[:40])) == 1
    assert adjusted_rand_score(truth, found.labels) > 0.99


def test_cells_all_alike_are_one_population() -> None:
    assert find(np.ones((60, 4), dtype=np.float32)).n_populations == 1


def test_an_embedding_that_is_not_finite_is_refused() -> None:
    broken = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    views = make_embedding_views(broken)
    broken[3, 1] = np.nan
    with pytest.raises(TrainingError, match="not finite"):
        find_populations(dataclasses.replace(views, learned=broken), n_populations=2)
    with pytest.raises(TrainingError, match="not finite"):
        cluster_embedding(broken, n_populations=2)


def test_the_papers_groups_are_the_best_of_ten_k_means_on_unit_rows() -> None:
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(200, 4)).astype(np.float32) * rng.uniform(0.1, 9, (200, 1)).astype(np.float32)
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    expected = KMeans(6, n_init=10, random_state=5).fit_predict(unit.astype(np.float64))
    found = cluster_embedding(embedding, n_populations=6, seed=5)
    assert adjusted_rand_score(expected, found.labels) == pytest.approx(1)


def test_the_papers_number_of_groups_comes_from_the_consensus() -> None:
    embedding, truth = make_groups((60, 60, 60, 60, 60))
    found = cluster_embedding(embedding)
    expected = find_populations(make_embedding_views(embedding))
    assert found.chosen
    np.testing.assert_array_equal(found.labels, expected.labels)
    assert adjusted_rand_score(truth, found.labels) > 0.9


def make_chain(sizes: list[int]) -> ConsensusTree:
    """A tree that parts off its leaves one by one, the last first."""
    n_leaves = len(sizes)
    merges = [[0 if k == 1 else n_leaves + k - 2, k, 0.1 * k, k + 1] for k in range(1, n_leaves)]
    return ConsensusTree(np.repeat(np.arange(n_leaves), sizes), np.array(merges, dtype=float))


@pytest.mark.parametrize(
    ("sizes", "n_populations", "n_groups"),
    [
        ([50, 30, 20], 2, 2),  # all large enough: the first cut
        ([50, 40, 2, 2], 2, 4),  # the stray leaves part first, and 2 cells are fewer than .07 of 94 / 2
        ([90, 3, 1], 2, 3),  # bound 3.29 is never met, 1.6 is
        ([5, 1, 1], 3, 3),  # only by halving below one cell
    ],
)
def test_the_cut_goes_as_deep_as_large_groups_need(sizes: list[int], n_populations: int, n_groups: int) -> None:
    groups = cut_with_guard(make_chain(sizes), n_populations)
    assert len(np.unique(groups)) == n_groups


def test_cells_of_small_groups_follow_their_neighbours_else_the_most_similar_group() -> None:
    groups = np.array([0, 0, 0, 1, 1, 1, 2, 2])
    scores = np.array([[1, 0]] * 3 + [[0, 1]] * 3 + [[0.9, 0.1], [0.1, 0.9]])
    # 6 lies among group 1 although it looks like group 0; 7 has itself and 6 only, and follows 6 a round later
    neighbors = np.array([[1, 2], [0, 2], [0, 1], [4, 5], [3, 5], [3, 4], [3, 4], [6, 6]])
    views = Views((scores,), scores, scores, neighbors)
    np.testing.assert_array_equal(follow_neighbors(groups, 2, views), [0, 0, 0, 1, 1, 1, 1, 1])
    neighbors[6:] = [[7, 7], [6, 6]]  # with each other only
    np.testing.assert_array_equal(follow_neighbors(groups, 2, views), [0, 0, 0, 1, 1, 1, 0, 1])


def test_a_vote_is_the_commonest_label_but_loses_no_population() -> None:
    rng = np.random.default_rng(0)
    labels = np.append(rng.integers(0, 3, 60), 3)
    neighbors = np.stack([rng.choice(np.delete(np.arange(61), i), 6, replace=False) for i in range(61)])
    found = vote(labels, neighbors)
    for i in range(60):
        counts = np.bincount(labels[[i, *neighbors[i]]], minlength=4)
        assert counts[found[i]] == counts.max()
    assert found[60] == 3


def test_borders_are_those_of_scikit_learns_discriminant() -> None:
    embedding, truth = make_groups((120, 60, 30), dim=6)
    blurred = embedding + np.random.default_rng(3).normal(0, 0.4, embedding.shape)
    expected = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1).fit(blurred, truth).predict(blurred)
    assert (expected != truth).any()
    np.testing.assert_array_equal(redraw_borders(truth, blurred), expected)


def test_settling_mends_scattered_mistakes() -> None:
    embedding, truth = make_groups((120, 80, 40))
    rng = np.random.default_rng(0)
    labels = np.where(rng.random(truth.size) < 0.15, rng.integers(0, 3, truth.size), truth)
    neighbors = nearest_neighbors(embedding, n_neighbors=10, cosine=True)
    unit = unit_rows(embedding)
    for learned in (None, embedding):
        found = settle(labels, Views((unit,), unit, unit, neighbors, learned))
        assert adjusted_rand_score(truth, found) > 0.97 > adjusted_rand_score(truth, labels)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=60))
def test_numbers_follow_size_and_groups_stay(labels: list[int]) -> None:
    given_labels = np.array(labels)
    found = order_by_size(given_labels)
    sizes = np.bincount(found.labels)
    assert found.n_populations == len(set(labels)) == sizes.size
    assert (np.diff(sizes) <= 0).all()
    for a in set(labels):
        assert len(set(found.labels[given_labels == a])) == 1


def test_of_equal_groups_the_one_with_the_first_cell_comes_first() -> None:
    assert order_by_size(np.array([9, 2, 2, 9, 5])).labels.tolist() == [0, 1, 1, 0, 2]


def test_centroids_are_mean_directions() -> None:
    embedding, truth = make_groups((30, 20, 10))
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    found = fit_centroids(unit, truth, 3)
    expected = NearestCentroid().fit(unit, truth).centroids_
    np.testing.assert_allclose(
        found.centroids, expected / np.linalg.norm(expected, axis=1, keepdims=True), rtol=1e-5, atol=1e-6
    )
    assert found.centroids.dtype == found.radii.dtype == np.float32


def test_radii_hold_95_percent() -> None:
    embedding, truth = make_groups((400, 200))
    unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    found = fit_centroids(unit, truth, 2)
    for k in range(2):
        distance = 1 - unit[truth == k] @ found.centroids[k]
        assert (distance <= found.radii[k] + 1e-6).mean() == pytest.approx(0.95, abs=0.006)


def test_one_cell_is_its_own_centroid() -> None:
    found = fit_centroids(np.array([[0.6, 0.8]], dtype=np.float32), np.array([0]), 1)
    np.testing.assert_allclose(found.centroids, [[0.6, 0.8]], rtol=1e-6)
    np.testing.assert_allclose(found.radii, [0], atol=1e-7)


def test_a_population_without_a_cell_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"\[1\] have no cell"):
        fit_centroids(np.eye(3, dtype=np.float32), np.array([0, 2, 2]), 3)
