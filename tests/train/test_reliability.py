"""Calibration error and reliability bins, against hand-worked figures, a plain loop and scikit-learn."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score

from scrcl_infer.errors import InputError
from scrcl_train.reliability import compute_calibration_error, compute_reliability, compute_unknown_auroc


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50), st.integers(1, 20))
@settings(max_examples=60, deadline=None)
def test_calibration_error_equals_a_plain_loop(pairs: list[tuple[float, bool]], n_bins: int) -> None:
    edges = np.linspace(0, 1, n_bins + 1)
    expected = 0.0
    for low, high in itertools.pairwise(edges):
        inside = [(c, r) for c, r in pairs if low < c <= high or (c == 0 == low)]
        if inside:
            expected += abs(sum(c for c, _ in inside) - sum(r for _, r in inside)) / len(pairs)
    found = compute_calibration_error([c for c, _ in pairs], [r for _, r in pairs], n_bins=n_bins)
    assert found == pytest.approx(expected, abs=1e-12)


def test_bins_equal_sklearns() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(2000)
    correct = rng.random(2000) < confidence**2
    accuracy, mean = calibration_curve(correct, confidence, n_bins=15)
    rows = compute_reliability(confidence, correct)
    assert len(rows) == 15
    assert [row.accuracy for row in rows] == pytest.approx(accuracy)
    assert [row.confidence for row in rows] == pytest.approx(mean)
    assert sum(row.n_cells for row in rows) == 2000


def test_overconfidence_is_measured() -> None:
    # 10 answers at 0.9 of which 6 are right: the error is 0.3
    assert compute_calibration_error([0.9] * 10, [True] * 6 + [False] * 4) == pytest.approx(0.3)


def test_ends_and_empty_bins() -> None:
    rows = compute_reliability([0.0, 0.5, 1.0], [False, True, True], n_bins=2)
    assert [(row.lower, row.upper, row.n_cells) for row in rows] == [(0.0, 0.5, 2), (0.5, 1.0, 1)]
    empty = compute_reliability([0.9], [True], n_bins=2)[0]
    assert empty.n_cells == 0
    assert math.isnan(empty.accuracy)


@pytest.mark.parametrize("bad", [-0.1, 1.5, float("nan")])
def test_confidences_outside_the_unit_interval_are_refused(bad: float) -> None:
    with pytest.raises(InputError, match="Pass probabilities"):
        compute_reliability([0.5, bad], [True, True])


def test_auroc_equals_sklearn_and_is_none_for_one_kind() -> None:
    rng = np.random.default_rng(1)
    novel, score = rng.random(100) < 0.3, np.round(rng.random(100), 1)
    assert compute_unknown_auroc(novel, score) == pytest.approx(roc_auc_score(novel, -score))
    assert compute_unknown_auroc([True, True], [0.1, 0.2]) is None
    assert compute_unknown_auroc([False, False], [0.1, 0.2]) is None
