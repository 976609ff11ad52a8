"""`scrcl_train.hiding` against brute force, and in a world whose classes are known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scrcl_infer.strangeness import Usual
from scrcl_train.calibration import choose_folds
from scrcl_train.distil import Targets, distil
from scrcl_train.hiding import (
    ERRORS,
    MIN_CLASSES,
    MIN_HIDDEN,
    MIN_LEARNED,
    MIN_NEAR,
    N_GROUPS,
    USUAL_WEIGHT,
    WEIGHTS,
    Hidden,
    choose_weights,
    compute_auroc,
    deal_groups,
    hide,
)
from scrcl_train.rejection import HeldOut, Signs
from scrcl_train.student import Student
from tests.student_case import QUICK, make_targets, make_world

EVEN = np.ones((3, 5), np.float32)
FLAT = Usual(np.array([0, 1, 2], np.float32), np.zeros((3, 5), np.float32), EVEN, EVEN)
"""Under which signs are as they are."""


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30), seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_no_class_is_hidden_twice_and_enough_stays_to_learn_from(sizes: list[int], seed: int) -> None:
    truth = np.concatenate([np.full(5, -1), np.repeat(np.arange(len(sizes)), sizes)])
    groups = deal_groups(truth, seed=seed)
    large = [name for name, size in enumerate(sizes) if size >= MIN_HIDDEN]
    hidden = sorted(int(name) for group in groups for name in group)
    assert len(set(hidden)) == len(hidden)
    assert set(hidden) <= set(large)
    assert len(groups) <= N_GROUPS
    for group in groups:
        assert 0 < group.size <= len(sizes) - 2
        assert sum(size for name, size in enumerate(sizes) if name not in group) >= MIN_LEARNED


def test_every_class_is_hidden_where_there_are_cells_enough() -> None:
    truth = np.repeat([0, 1, 2, 3, 5, 8], [200, 100, MIN_HIDDEN, MIN_HIDDEN - 1, 100, 100])
    assert sorted(int(name) for group in deal_groups(truth) for name in group) == [0, 1, 2, 5, 8]
    assert deal_groups(np.repeat([0, 1], 100)) == []
    assert [list(group) for group in deal_groups(np.repeat([0, 1, 2], [500, 5, 5]))] == []


def as_measured(values: NDArray[np.float64], n_detected: int = 10) -> HeldOut:
    nothing = Signs(np.zeros((0, 5)), np.zeros(0, np.int64))
    return HeldOut(Signs(values, np.full(len(values), n_detected)), (nothing,))


def draw(distance: float, doubt: float, seed: int, n: int = 300) -> NDArray[np.float64]:
    values = np.random.default_rng(seed).normal(size=(n, 5))
    values[:, 0] += distance
    values[:, -1] += doubt
    return values


def test_doubt_counts_at_the_depth_where_it_tells_and_not_where_it_misleads() -> None:
    """Shallow cells of the hidden classes are doubtful, deep ones are far away and sure; there are none between."""
    sizes = np.repeat([1, 100], 300)

    def both(shallow: tuple[float, float], deep: tuple[float, float], seed: int) -> HeldOut:
        signs = Signs(np.concatenate([draw(*shallow, seed), draw(*deep, seed + 1)]), sizes)
        return HeldOut(signs, (signs,))

    classes = tuple(both((0, 3), (2, -2), seed) for seed in (2, 4, 6))
    found = choose_weights([Hidden(both((0, 0), (0, 0), 0), classes)], FLAT)
    np.testing.assert_array_equal(found[:, :-1], 1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, -1], [WEIGHTS[-1], USUAL_WEIGHT, 0])


def count_pairs(known: NDArray[np.float64], unknown: NDArray[np.float64], doubt: float) -> float:
    """AUROC by brute force."""
    a, b = (np.round(values @ np.array([1, 1, 1, 1, doubt]), 9) for values in (known, unknown))
    return float((b[:, None] > a[None, :]).mean() + (b[:, None] == a[None, :]).mean() / 2)


@given(seed=st.integers(0, 200), distance=st.floats(0, 3), doubt=st.floats(-2, 3), n=st.integers(3, 6))
@settings(max_examples=30, deadline=None)
def test_the_chosen_weight_is_the_nearest_to_the_usual_that_is_not_clearly_worse(
    seed: int, distance: float, doubt: float, n: int
) -> None:
    known, *unknown = draw(0, 0, seed, 40), *(draw(distance, doubt, seed + 1 + i, 40) for i in range(n))
    chosen = choose_weights([Hidden(as_measured(known), tuple(map(as_measured, unknown)))], FLAT)[1, -1]
    told = {weight: np.array([count_pairs(known, one, weight) for one in unknown]) for weight in WEIGHTS}
    highest = max(values.mean() for values in told.values())
    usual = WEIGHTS.index(USUAL_WEIGHT)
    expected = set()
    for best in told.values():
        if best.mean() >= highest - 1e-9:  # several may be the best
            fair = [w for w in WEIGHTS if (best - told[w]).mean() <= ERRORS * scipy.stats.sem(best - told[w]) + 1e-9]
            expected.add(min(fair, key=lambda w: abs(WEIGHTS.index(w) - usual)))
    assert chosen in expected


def test_each_hidden_class_has_one_vote_however_many_cells_it_has() -> None:
    known = as_measured(draw(0, 0, 0))
    misled = [as_measured(draw(1, -1, 1 + i, 3000)) for i in range(3)]
    told = [as_measured(draw(0, 2, 5 + i, 20)) for i in range(9)]
    assert choose_weights([Hidden(known, tuple(misled))], FLAT)[1, -1] < USUAL_WEIGHT
    assert choose_weights([Hidden(known, (*misled, *told))], FLAT)[1, -1] >= USUAL_WEIGHT


def test_the_usual_weight_stays_where_little_was_hidden_or_none_is_better() -> None:
    np.testing.assert_array_equal(choose_weights([], FLAT)[:, -1], USUAL_WEIGHT)
    apart = tuple(as_measured(np.full((9, 5), 5.0)) for _ in range(MIN_CLASSES))
    np.testing.assert_array_equal(
        choose_weights([Hidden(as_measured(np.zeros((9, 5))), apart)], FLAT)[:, -1], USUAL_WEIGHT
    )
    known, doubtful = as_measured(draw(0, 0, 0)), [as_measured(draw(0, 9, 1 + i)) for i in range(MIN_CLASSES)]
    assert choose_weights([Hidden(known, tuple(doubtful))], FLAT)[1, -1] > USUAL_WEIGHT
    assert choose_weights([Hidden(known, tuple(doubtful[:-1]))], FLAT)[1, -1] == USUAL_WEIGHT
    few = [as_measured(draw(0, 9, 1 + i, int(MIN_NEAR) - 1)) for i in range(MIN_CLASSES)]
    assert choose_weights([Hidden(known, tuple(few))], FLAT)[1, -1] == USUAL_WEIGHT


@given(seed=st.integers(0, 200), distance=st.floats(-1, 4))
@settings(max_examples=30, deadline=None)
def test_the_auroc_is_the_mean_share_of_pairs_in_the_right_order(seed: int, distance: float) -> None:
    known, *hidden = draw(0, 0, seed, 30), draw(distance, 0, seed + 1, 20), draw(2, 0, seed + 2, 5)
    doubted = FLAT._replace(weights=np.array([[1, 1, 1, 1, 2]] * 3, np.float32))
    found = compute_auroc([Hidden(as_measured(known), tuple(map(as_measured, hidden)))], doubted)
    pairs = [count_pairs(known, one, 2) for one in hidden]
    assert found == pytest.approx(np.mean(pairs))
    assert compute_auroc([], FLAT) is None


@pytest.mark.parametrize("labelled", [True, False])
def test_students_never_see_what_they_are_asked_for_and_what_was_hidden_is_stranger(*, labelled: bool) -> None:
    world = make_world(240)
    targets = make_targets(world, labelled=labelled)
    folds = choose_folds(world.truth)
    seen: list[sp.csr_matrix] = []

    def teach(counts: sp.csr_matrix, library_size: NDArray[np.float32], taught: Targets) -> Student:
        seen.append(counts)
        assert set(taught.classes) == {0, 1}
        return distil(counts, library_size, taught, config=QUICK)

    found = hide(world.counts, world.library_size, targets, folds, teach)
    assert len(found) == 3
    hidden_names = [int(group[0]) for group in deal_groups(world.truth)]
    for i, (part, name) in enumerate(zip(found, hidden_names, strict=True)):
        learned, held_out = folds[i % len(folds)]
        rows = learned[world.truth[learned] != name]
        np.testing.assert_array_equal(seen[i].toarray(), world.counts[rows].toarray())
        assert part.known.measured.n_detected.size == (world.truth[held_out] != name).sum()
        assert part.classes[0].measured.n_detected.size == (world.truth == name).sum()
        # Distances alone: the hidden class raises genes of its own.
        known, unknown = (np.median(one.measured.values[:, :3].sum(axis=1)) for one in (part.known, part.classes[0]))
        assert unknown > 1.5 * known
