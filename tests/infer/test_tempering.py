"""Temperature and threshold against what they are defined to be, for populations and for types made of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp, softmax
from sklearn.metrics import adjusted_rand_score, log_loss

from scrcl_infer.assign import apply_temperature
from scrcl_infer.contract import Calibration
from scrcl_infer.parts import HeldOutAnswers
from scrcl_infer.tempering import (
    KEPT_FRACTION,
    UNSURE_AT_MOST,
    UNSURE_SHARE,
    calibrate_types,
    choose_threshold,
    fit_temperature,
    is_same_grouping,
)


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


def answers(n: int = 3000, within: float = 0.98) -> tuple[HeldOutAnswers, NDArray[np.int64]]:
    """Three types that are told as well as they say, in four populations each that nothing tells apart."""
    rng = np.random.default_rng(1)
    of_types, truth = draw(n, 1.0)
    of_population = np.repeat([0, 1, 2, 3], 4)
    guess = log_softmax(rng.normal(0, 3, (n, 16)), axis=1)
    shares = np.concatenate([log_softmax(guess[:, 4 * t : 4 * t + 4], axis=1) for t in range(4)], axis=1)
    log_posterior = (of_types[:, of_population] + shares).astype(np.float32)
    return HeldOutAnswers(log_posterior, 4 * truth + rng.integers(0, 4, n), rng.random(n) < within), of_population


def test_types_get_the_temperature_of_types_and_not_that_of_their_populations() -> None:
    held_out, of_population = answers()
    own = np.arange(16)
    wrong = fit_temperature(held_out.log_posterior, held_out.population)
    assert wrong > 2
    old = Calibration(wrong, 0.01, 0.5, None, 9000, 0.9)
    new = calibrate_types(old, held_out, own, of_population)
    by_type = logsumexp(held_out.log_posterior.astype(float).reshape(-1, 4, 4), axis=2)
    truth = of_population[held_out.population]
    assert new.temperature == pytest.approx(fit_temperature(by_type, truth), abs=1e-3)
    assert new.temperature < 1.1
    confidence = softmax(by_type / new.temperature, axis=1).max(axis=1)
    assert new.threshold == pytest.approx(choose_threshold(confidence, held_out.within), abs=1e-6)
    assert new.kept_fraction == pytest.approx((held_out.within & (confidence >= new.threshold - 1e-9)).mean())
    assert (new.n_held_out, new.hidden_auroc) == (3000, 0.9)
    assert new.accuracy == (by_type.argmax(axis=1) == truth).mean()
    # Now a cell is right as often as it says.
    right = by_type.argmax(axis=1) == truth
    assert confidence.mean() == pytest.approx(right.mean(), abs=0.02)


def test_other_names_for_the_same_groups_and_old_bundles_keep_the_calibration() -> None:
    held_out, of_population = answers(50)
    old = Calibration(2.5, 0.01, 0.5)
    assert calibrate_types(old, held_out, of_population, 3 - of_population) is old
    assert calibrate_types(old, None, np.arange(16), of_population) is old


def test_a_type_without_a_trace_of_probability_costs_no_infinity() -> None:
    log_posterior = np.full((40, 3), -800.0, np.float32)
    log_posterior[:, 0] = 0
    held_out = HeldOutAnswers(log_posterior, np.repeat([0, 2], [39, 1]), np.ones(40, dtype=bool))
    new = calibrate_types(Calibration(1.0, 0.0, 1.0), held_out, np.arange(3), np.array([0, 0, 1]))
    assert np.isfinite([new.temperature, new.threshold]).all()
    assert new.temperature > 10


groups = st.lists(st.integers(0, 4), min_size=6, max_size=6).map(np.array)


@settings(deadline=None)
@given(groups, groups)
def test_groupings_are_the_same_where_the_rand_index_is_one(one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
    assert is_same_grouping(one, other) == (adjusted_rand_score(one, other) == 1)
    renumbered = np.array([7, 3, 9, 1, 5])[one]
    assert is_same_grouping(one, renumbered)
