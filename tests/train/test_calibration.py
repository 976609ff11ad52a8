"""Folds, and the calibration of a world whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrcl_infer.tempering import fit_temperature
from scrcl_train import calibration
from scrcl_train.calibration import (
    ENOUGH_HELD_OUT,
    MAX_FITS,
    calibrate,
    choose_folds,
    count_students,
)
from scrcl_train.distil import DistilEpoch
from tests.student_case import QUICK, make_targets, make_world

SHORT = replace(QUICK, min_steps=120)


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
    assert found.accuracy is not None
    assert found.accuracy > 0.9
    assert 0.95 <= found.kept_fraction <= 1
    assert calibrated.scale is not None
    assert (found.expected_calibration_error is None) is not labelled
    if found.expected_calibration_error is not None:
        assert found.expected_calibration_error < 0.15
    assert found.hidden_auroc is not None
    assert found.hidden_auroc > 0.9
    assert (calibrated.held_out is None) is labelled
    if calibrated.held_out is not None:
        # What is kept gives the calibration again: the answers are whole, and of the right cells.
        assert fit_temperature(calibrated.held_out.log_posterior, calibrated.held_out.population) == found.temperature
        assert calibrated.held_out.within.mean() >= found.kept_fraction
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


def test_no_more_answers_are_kept_than_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "MAX_KEPT", 7)
    world = make_world(100)
    targets = make_targets(world, labelled=False)
    found = calibrate(world.counts, world.library_size, targets, config=replace(QUICK, min_steps=8))
    assert found.held_out is not None
    assert found.held_out.log_posterior.shape == (7, targets.n_populations)
    assert found.held_out.population.shape == found.held_out.within.shape == (7,)
    assert found.calibration.n_held_out > 7
