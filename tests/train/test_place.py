"""The map of the training cells."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.manifold import trustworthiness
from sklearn.metrics import silhouette_score

from scrcl_train.place import compute_map
from tests.student_case import make_targets, make_world


def test_the_map_keeps_neighbours_and_separates_groups() -> None:
    world = make_world(150)
    embedding = make_targets(world, labelled=False).embedding
    place = compute_map(embedding, seed=0)
    assert place.shape == (150, 2)
    assert place.dtype == np.float32
    assert trustworthiness(embedding, place, n_neighbors=10) > 0.85
    assert silhouette_score(place, world.truth) > 0.6


def test_the_same_seed_draws_the_same_map() -> None:
    embedding = make_targets(make_world(60), labelled=False).embedding
    first, second = (compute_map(embedding, seed=4) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("n_cells", [1, 2, 9, 12])
def test_few_cells_get_a_finite_place(n_cells: int) -> None:
    place = compute_map(np.random.default_rng(0).normal(size=(n_cells, 5)).astype(np.float32))
    assert place.shape == (n_cells, 2)
    assert np.isfinite(place).all()


def test_cells_all_alike_and_one_dimension_get_a_finite_place() -> None:
    assert np.isfinite(compute_map(np.ones((30, 4), dtype=np.float32))).all()
    assert np.isfinite(compute_map(np.arange(30, dtype=np.float32)[:, None])).all()
