"""Temperature, threshold and folds against what they are defined to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss

from scrcl_infer.assign import apply_temperature
from scrcl_train.calibration import (
    ENOUGH_HELD_OUT,
    MAX_FITS,
    UNSURE_AT_MOST,
    UNSURE_SHARE,
    calibrate,
    choose_folds,
    choose_threshold,
    count_students,
    fit_temperature,
)
from scrcl_train.distil import DistilEpoch
from scrcl_train.rejection import KEPT_FRACTION
from tests.student_case import QUICK, make_targets, make_world

SHORT = replace(QUICK, min_steps=120)


def draw(n: int, temperature: float, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Log posteriors that are `temperature` times too sure, and the truth."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (n, 4))
    truth = np.array([rng.choice(4, p=p) for p in softmax(logits, axis=1)])
    return log_softmax(logits * temperature, axis=1).astype(np.float32), truth


@given(seed=st.integers(0, 1000), n=st.integers(1, 600), inside=st.floats(0, 1), sharp=st.floats(0.2, 5))
def test_few_cells_are_below_the_threshold_and_enough_are_kept(seed: int, n: int, inside: float, sharp: float) -> None:
    rng = np.random.default_rng(seed)
    confidence, within = rng.beta(sharp, 1, n), rng.random(n) < inside
    threshold = choose_threshold(confidence, within)
    kept = within & (confidence >= threshold)
    assert 0 <= threshold <= UNSURE_AT_MOST
    assert (within & ~kept).sum() <= UNSURE_SHARE * n
    assert kept.mean() >= min(KEPT_FRACTION, within.mean())


def test_the_threshold_is_as_high_as_it_may_be() -> None:
    confidence, within = np.linspace(0.1, 1, 1000), np.ones(1000, dtype=bool)
    assert choose_threshold(confidence, within) == confidence[10]
    assert choose_threshold(confidence / 2 + 0.5, within) == UNSURE_AT_MOST


@pytest.mark.parametrize("temperature", [1.3, 3.0])
def test_a_known_temperature_is_found(temperature: float) -> None:
    log_posterior, truth = draw(6000, temperature)
    assert fit_temperature(log_posterior, truth) == pytest.approx(temperature, rel=0.08)


def test_no_other_temperature_has_a_lower_log_loss() -> None:
    log_posterior, truth = draw(400, 2.0)
    best = fit_temperature(log_posterior, truth)
    losses = {t: log_loss(truth, apply_temperature(log_posterior, t)) for t in (best, *np.geomspace(1, 10, 41))}
    assert min(losses, key=losses.__getitem__) == best


def test_answers_that_are_all_right_are_not_made_surer() -> None:
    log_posterior = log_softmax(np.eye(3)[[0, 1, 2, 0]] * 5, axis=1).astype(np.float32)
    assert fit_temperature(log_posterior, np.array([0, 1, 2, 0])) == pytest.approx(1.0, abs=1e-3)
    too_modest, truth = draw(2000, 0.5)
    assert fit_temperature(too_modest, truth) == pytest.approx(1.0, abs=1e-3)


def test_folds_hold_out_a_seventh_of_each_type() -> None:
    truth = np.repeat([0, 1, 2], [2800, 700, 70])
    folds = choose_folds(truth)
    assert len(folds) == 1
    learned, held_out = folds[0]
    np.testing.assert_array_equal(np.sort(np.concatenate([learned, held_out])), np.arange(truth.size))
    np.testing.assert_array_equal(np.bincount(truth[held_out]), [400, 100, 10])


def test_few_cells_are_held_out_in_turn_until_there_are_enough() -> None:
    truth = np.repeat([0, 1], [500, 200])
    folds = choose_folds(truth)
    held_out = np.concatenate([cells for _, cells in folds])
    assert len(folds) == 3
    assert held_out.size >= ENOUGH_HELD_OUT
    assert np.unique(held_out).size == held_out.size


def test_small_data_is_fitted_a_few_times_only() -> None:
    folds = choose_folds(np.zeros(70, dtype=np.int64))
    assert len(folds) == MAX_FITS
    assert np.unique(np.concatenate([cells for _, cells in folds])).size == 30


@given(st.lists(st.integers(-1, 5), min_size=1, max_size=200), st.integers(0, 3))
def test_every_type_stays_learned_and_cells_without_type_are_never_held_out(labels: list[int], seed: int) -> None:
    truth = np.array(labels)
    for learned, held_out in choose_folds(truth, seed=seed):
        assert set(truth[learned]) == set(labels)
        assert (truth[held_out] >= 0).all()
        assert np.intersect1d(learned, held_out).size == 0
        assert learned.size + held_out.size == truth.size


def test_no_type_with_two_cells_leaves_nothing_to_hold_out() -> None:
    assert choose_folds(np.array([0, 1, 2, -1, -1])) == []
    assert count_students(np.array([0, 1, 2, -1, -1])) == 0


@pytest.mark.parametrize("labelled", [True, False])
def test_calibrating_a_world_whose_truth_is_known(*, labelled: bool) -> None:
    world = make_world(140)
    seen: list[DistilEpoch] = []
    calibrated = calibrate(
        world.counts, world.library_size, make_targets(world, labelled=labelled), config=SHORT, on_epoch=seen.append
    )
    found = calibrated.calibration
    assert found.n_held_out == 60
    assert 0.95 <= found.kept_fraction <= 1
    assert calibrated.scale is not None
    assert (found.expected_calibration_error is None) is not labelled
    if found.expected_calibration_error is not None:
        assert found.expected_calibration_error < 0.15
    assert found.hidden_auroc is not None
    assert found.hidden_auroc > 0.9
    without_a_type = 3
    assert sum(log.epoch == 1 for log in seen) == MAX_FITS + without_a_type == count_students(world.truth)


def test_calibrating_the_same_seed_gives_the_same_figures() -> None:
    world = make_world(100)
    targets = make_targets(world, labelled=True)
    config = replace(QUICK, min_steps=8)
    first, second = (calibrate(world.counts, world.library_size, targets, config=config, seed=5) for _ in range(2))
    assert first.calibration == second.calibration
    assert first.scale is not None
    assert second.scale is not None
    np.testing.assert_array_equal(first.scale.limit, second.scale.limit)


def test_nothing_is_rejected_where_nothing_can_be_held_out() -> None:
    world = make_world(60)
    targets = make_targets(world, labelled=True)
    lone = np.full(60, -1)
    lone[:2] = [0, 1]
    calibrated = calibrate(world.counts, world.library_size, replace(targets, types=lone), config=SHORT)
    found = calibrated.calibration
    assert calibrated.scale is None
    assert (found.temperature, found.threshold, found.kept_fraction, found.n_held_out) == (1.0, 0.0, 1.0, 0)
