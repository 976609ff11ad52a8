"""What the gene-gene correlations support, against simulated signal and noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from scrcl_train.components import MAX_DEALT, Components, compute_support, measure_noise


def make_scores(spread: list[float], n_cells: int = 4000, seed: int = 0) -> NDArray[np.float32]:
    """Uncorrelated columns of exactly these standard deviations."""
    columns = np.linalg.qr(np.random.default_rng(seed).normal(size=(n_cells, len(spread))))[0]
    columns = columns - columns.mean(0)
    return (columns / columns.std(0) * spread).astype(np.float32)


def test_support_is_the_share_of_variance_above_the_noise() -> None:
    found = compute_support(make_scores([4.0, 2.0, 1.0, 0.5]), 1.0)
    np.testing.assert_allclose(found, [1 - 1 / 16, 1 - 1 / 4, 0, 0], atol=1e-4)


def test_noise_is_the_edge_of_random_matrices() -> None:
    """Without correlations the largest eigenvalue is known (Marchenko and Pastur 1967)."""
    matrix = np.random.default_rng(0).normal(size=(1500, 300)).astype(np.float32)
    assert measure_noise(matrix) == pytest.approx((1 + np.sqrt(300 / 1500)) ** 2, rel=0.03)


def test_correlations_do_not_count_as_noise() -> None:
    rng = np.random.default_rng(0)
    alone = rng.normal(size=(1500, 300))
    together = alone + 3 * rng.normal(size=(1500, 1)) * rng.normal(size=300)
    together /= together.std(axis=0)
    assert measure_noise(together.astype(np.float32)) == pytest.approx(measure_noise(alone.astype(np.float32)), rel=0.1)


def test_noise_of_many_cells_is_reckoned_from_some(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = np.random.default_rng(0).normal(size=(4000, 200)).astype(np.float32)
    all_cells = measure_noise(matrix)
    assert len(matrix) < MAX_DEALT
    monkeypatch.setattr("scrcl_train.components.MAX_DEALT", 500)
    assert measure_noise(matrix) == pytest.approx(all_cells, rel=0.05)


def test_shrinking_brings_noisy_scores_nearer_to_the_truth() -> None:
    rng = np.random.default_rng(1)
    spread = np.array([3.0, 1.0, 0.5, 0.0])
    truth = make_scores(spread.tolist())
    noisy = truth + rng.normal(size=truth.shape).astype(np.float32)
    components = Components(noisy, np.eye(4, dtype=np.float32), compute_support(noisy, 1.0), 1.0)
    wiener = spread**2 / (spread**2 + 1)  # what is known to be best for signal and noise of these variances
    np.testing.assert_allclose(components.support, wiener, atol=0.06)
    assert ((components.shrunk - truth) ** 2).mean() < 0.7 * ((noisy - truth) ** 2).mean()


def test_refined_scores_lie_half_way() -> None:
    scores = make_scores([3.0, 2.0, 1.0])
    components = Components(scores, np.eye(3, dtype=np.float32), compute_support(scores, 1.0), 1.0)
    np.testing.assert_allclose(components.refined**2, components.shrunk * scores, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(components.supported, [True, True, False])


@pytest.mark.parametrize("spread", [[1.0, 1.0, 1.0], [0.0, 0.0], [2.0]])
def test_where_nothing_stands_out_all_is_kept(spread: list[float]) -> None:
    scores = np.zeros((20, 2), dtype=np.float32) if not any(spread) else make_scores(spread)
    np.testing.assert_array_equal(compute_support(scores, 4.0), np.ones(len(spread)))


def test_components_without_variance_have_no_support() -> None:
    np.testing.assert_array_equal(compute_support(make_scores([2.0, 0.0, 0.0]), 1.0) > 0.5, [True, False, False])


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=12), st.floats(0, 1000))
def test_support_never_increases_and_stays_in_range(spread: list[float], noise: float) -> None:
    found = compute_support(make_scores(sorted(spread, reverse=True), n_cells=60), noise)
    assert np.all((found >= 0) & (found <= 1))
    assert np.all(np.diff(found) <= 1e-6)
