"""Choose how much doubt counts beside the distances: hide classes from students, and see which weight tells them best.

Where cells of an unknown type lie between the known ones their doubt tells them, and where they lie elsewhere it
misleads; which of the two holds is a matter of the tissue and of the cells' depth. See
`docs/decisions/0003-calibration.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scrcl_infer.strangeness import N_SIGNS, Usual, add_signs
from scrcl_train.classes import fit_classes
from scrcl_train.distil import Targets
from scrcl_train.rejection import HeldOut, compute_tents, join, measure_held_out
from scrcl_train.reliability import compute_unknown_auroc
from scrcl_train.student import Student, predict

N_GROUPS = 4
"""Classes are hidden a quarter at a time, each once."""
MIN_HIDDEN = 10
"""Classes of fewer cells are never hidden: they tell little, and are dear to the student."""
MIN_LEARNED = 50
"""Cells of the other classes without which a student has nothing to learn from."""
MAX_LEARNED, MAX_HIDDEN = 4000, 500
"""Cells that a student learns here, and cells of a hidden class that it is asked for: large data take no longer."""
MIN_NEAR = 5.0
"""Cells near a knot, of a hidden class and of the others, from which on the class has a say there."""
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Of doubt, where each distance has 1."""
USUAL_WEIGHT = 0.5
"""Kept unless another is clearly better: of those that are the same for all data it is one of the best."""
ERRORS = 2.0
"""Standard errors that a weight is to be worse than the best before it is given up."""
MIN_CLASSES = 3
"""Of fewer no error can be told."""


@dataclass(frozen=True)
class Hidden:
    """Signs by a student from which classes were hidden."""

    known: HeldOut
    """Of cells of the other classes that it has not learned either."""
    classes: tuple[HeldOut, ...]
    """Of the cells of each hidden class."""


def deal_groups(truth: NDArray[np.int64], *, seed: int = 0) -> list[NDArray[np.int64]]:
    """Deal the classes that are to be hidden into groups that leave two classes and `MIN_LEARNED` cells or more.

    Parameters
    ----------
    truth
        (n,) class of each cell, -1 without.

    Returns
    -------
    list
        `N_GROUPS` arrays of classes or fewer; none where there are fewer than three classes.
    """
    names, sizes = np.unique(truth[truth >= 0], return_counts=True)
    large = np.random.default_rng(seed).permutation(names[sizes >= MIN_HIDDEN])
    if names.size < 3 or large.size == 0:
        return []
    groups = [np.sort(large[start::N_GROUPS]) for start in range(min(N_GROUPS, large.size))]
    return [group for group in groups if sizes[~np.isin(names, group)].sum() >= MIN_LEARNED]


def hide(
    counts: sp.csr_matrix,
    library_size: NDArray[np.float32],
    targets: Targets,
    folds: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
    teach: Callable[[sp.csr_matrix, NDArray[np.float32], Targets], Student],
    *,
    thin: bool = True,
    seed: int = 0,
) -> list[Hidden]:
    """Teach one student for each group of classes without it, and measure that group and held-out cells.

    Parameters
    ----------
    counts, library_size, targets
        As for `scrcl_train.calibration.calibrate`.
    folds
        Cells that may be learned, and cells that are held out: one pair for each group, in turn.
    teach
        Returns a student of counts, library sizes and targets.
    thin
        As for `scrcl_train.rejection.measure_held_out`.
    seed
        Of the choice of groups and cells, and of the draws.

    Returns
    -------
    list
        One for each of `deal_groups`.
    """
    library, truth, found = np.reshape(library_size, -1), targets.classes, []
    rng = np.random.default_rng(seed)
    for i, group in enumerate(deal_groups(truth, seed=seed)):
        learned, held_out = folds[i % len(folds)]
        allowed = learned[(truth[learned] >= 0) & ~np.isin(truth[learned], group)]
        rows = np.sort(rng.permutation(allowed)[:MAX_LEARNED])
        _, codes = np.unique(truth[rows], return_inverse=True)
        # Numbered anew: a class that the student never sees would still get some of the probability.
        taught = targets.take(rows).with_classes(codes.astype(np.int64), int(codes.max()) + 1)
        student = teach(counts[rows], library[rows], taught)
        classes = fit_classes(student, predict(student, counts[rows], library[rows]), codes)
        asked = [held_out[np.isin(truth[held_out], np.unique(truth[rows]))]]
        asked += [rng.permutation(np.flatnonzero(truth == name))[:MAX_HIDDEN] for name in group]
        known, *hidden = (
            measure_held_out(student, classes, counts[cells], library[cells], overlaps=[1.0], thin=thin, seed=seed)
            for cells in asked
        )
        found.append(Hidden(known, tuple(hidden)))
    return found


def choose_weights(hidden: list[Hidden], usual: Usual) -> NDArray[np.float32]:
    """Return the weights (m, 5) of the signs at the knots, those of doubt as hidden classes show them to be there.

    A weight is as good as the mean over the classes of the AUROC of their cells against held-out cells of the others,
    all as measured and at other depths, each cell counting as much as it lies near the knot. Of the weights that are
    not worse than the best one by more than `ERRORS` standard errors the nearest to the usual one is taken.
    """
    n_knots = len(usual.log_detected)
    by_class = [_tell(part.known, signs, usual) for part in hidden for signs in part.classes]
    told = np.reshape(by_class, (-1, len(WEIGHTS), n_knots))
    return _weights(np.array([_choose(told[:, :, knot]) for knot in range(n_knots)]))


def _choose(told: NDArray[np.float64]) -> float:
    """Choose a weight by AUROCs (classes, weights), NaN for classes that have no say."""
    told = told[~np.isnan(told).any(axis=1)]
    if len(told) < MIN_CLASSES:
        return USUAL_WEIGHT
    loss = told[:, [told.mean(axis=0).argmax()]] - told  # paired: some classes are harder than others
    error = loss.std(axis=0, ddof=1) / math.sqrt(len(told))
    fair = np.flatnonzero(loss.mean(axis=0) <= ERRORS * error + 1e-12)
    return WEIGHTS[fair[np.abs(fair - WEIGHTS.index(USUAL_WEIGHT)).argmin()]]


def compute_auroc(hidden: list[Hidden], usual: Usual) -> float | None:
    """Return how well strangeness tells hidden classes from held-out cells of the others, all as measured.

    Parameters
    ----------
    usual
        With the weights from `choose_weights`.

    Returns
    -------
    float or None
        Mean AUROC over the classes; None where none was hidden.
    """
    pairs = [(part.known.measured, signs.measured) for part in hidden for signs in part.classes]
    found = []
    for known, unknown in pairs:
        both = join([known, unknown])
        is_hidden = np.arange(both.n_detected.size) >= known.n_detected.size
        auroc = compute_unknown_auroc(is_hidden, -add_signs(both.values, both.n_detected, usual))
        found += [] if auroc is None else [auroc]
    return float(np.mean(found)) if found else None


def _tell(known: HeldOut, hidden: HeldOut, usual: Usual) -> NDArray[np.float64]:
    """AUROC (weights, m) at the knots; NaN where there are too few cells."""
    from sklearn.metrics import roc_auc_score

    both = join([known.whole, hidden.whole])
    is_hidden = np.arange(both.n_detected.size) >= known.whole.n_detected.size
    near = compute_tents(both, usual.log_detected)
    found = np.full((len(WEIGHTS), len(near)), np.nan)
    for row, weight in enumerate(WEIGHTS):
        score = add_signs(both.values, both.n_detected, usual._replace(weights=_weights(np.full(len(near), weight))))
        for knot, cells in enumerate(near):
            if min(cells[is_hidden].sum(), cells[~is_hidden].sum()) >= MIN_NEAR:
                found[row, knot] = roc_auc_score(is_hidden, score, sample_weight=cells)
    return found


def _weights(doubt: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weights (m, 5) of which those of doubt are (m,)."""
    return np.column_stack([np.ones((len(doubt), N_SIGNS - 1)), doubt]).astype(np.float32)
