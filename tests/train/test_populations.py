"""Populations in data whose groups are known; centroids against plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestCentroid

from scrcl_infer.errors import TrainingError
from scrcl_train.populations import find_populations, fit_centroids, make_views, order_by_size


def make_groups(
    sizes: tuple[int, ...], *, dim: int = 12, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    middle = np.linalg.qr(rng.normal(size=(dim, dim)))[0][: len(sizes)]
    return (middle[truth] + rng.normal(0, 0.08, (truth.size, dim))).astype(np.float32), truth


@pytest.mark.parametrize("sizes", [(150, 100, 50), (240, 20, 20), (60, 60, 60, 60, 60)])
def test_known_groups_are_found(sizes: tuple[int, ...]) -> None:
    embedding, truth = make_groups(sizes)
    found = find_populations(embedding, n_populations=len(sizes))
    assert found.n_populations == len(sizes)
    assert not found.chosen
    assert adjusted_rand_score(truth, found.labels) > 0.99


@pytest.mark.parametrize("sizes", [(300, 200, 100), (60, 60, 60, 60, 60)])
def test_clear_groups_are_counted(sizes: tuple[int, ...]) -> None:
    embedding, truth = make_groups(sizes)
    found = find_populations(embedding)
    assert found.chosen
    assert adjusted_rand_score(truth, found.labels) > 0.99


def test_a_view_that_shows_nothing_does_not_hide_what_the_others_show() -> None:
    embedding, truth = make_groups((80, 60, 40))
    noise = np.random.default_rng(1).normal(size=embedding.shape).astype(np.float32)
    found = find_populations([embedding, embedding[:, ::-1], noise], n_populations=3)
    assert adjusted_rand_score(truth, found.labels) > 0.99


def test_views_of_a_teacher() -> None:
    rng = np.random.default_rng(0)
    pcs = rng.normal(size=(30, 22)).astype(np.float32)
    graph = sp.random_array((30, 30), density=0.2, rng=rng, format="csr")
    graph = ((graph + graph.T) > 0).astype(float)
    graph.setdiag(0)
    graph.eliminate_zeros()
    learned = [rng.normal(size=(30, 8)).astype(np.float32) for _ in range(2)]
    views = make_views(pcs, sp.csr_matrix(graph), learned)
    assert [view.shape[1] for view in views] == [22, 20, 15] * 3 + [16, 8, 8]
    neighbours = np.flatnonzero(graph[[4]].toarray()[0])
    np.testing.assert_allclose(views[0][4], pcs[[4, *neighbours]].mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(views[6], axis=1), 1, rtol=1e-5)
    assert len(make_views(pcs, sp.csr_matrix(graph), [])) == 9


def test_the_answer_does_not_depend_on_the_seed_where_groups_are_clear() -> None:
    embedding, _ = make_groups((150, 100, 50))
    first, second = (find_populations(embedding, n_populations=3, seed=seed).labels for seed in (0, 1))
    np.testing.assert_array_equal(first, second)


def test_the_same_seed_gives_the_same_groups_where_they_are_not() -> None:
    cloud = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    first, second = (find_populations(cloud, n_populations=7, seed=3).labels for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("wanted", [1, 2, 40])
def test_as_many_as_asked_for(wanted: int) -> None:
    cloud = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    found = find_populations(cloud, n_populations=wanted)
    assert np.array_equal(np.unique(found.labels), np.arange(wanted))


@pytest.mark.parametrize("wanted", [0, -1, 51])
def test_a_number_that_cannot_be_is_refused(wanted: int) -> None:
    with pytest.raises(TrainingError, match=f"{wanted} populations were asked for"):
        find_populations(np.eye(50, dtype=np.float32), n_populations=wanted)


def test_more_groups_than_cells_that_differ_are_refused() -> None:
    twins = np.repeat(np.eye(2, dtype=np.float32), 30, axis=0)
    with pytest.raises(TrainingError, match="only 2 cells differ"):
        find_populations(twins, n_populations=3)


def test_cells_all_alike_are_one_population() -> None:
    assert find_populations(np.ones((60, 4), dtype=np.float32)).n_populations == 1


def test_an_embedding_that_is_not_finite_is_refused() -> None:
    broken = np.ones((60, 4), dtype=np.float32)
    broken[3, 1] = np.nan
    with pytest.raises(TrainingError, match="not finite"):
        find_populations(broken, n_populations=2)


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
