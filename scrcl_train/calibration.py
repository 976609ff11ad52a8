"""Make probabilities mean what they say, and find how strange a cell must be to be unknown.

The figures come from training cells that a student has not seen: some are held out, a first student learns the others,
and its answers for the held-out ones set the temperature and the scale. The exported student then learns all cells.
See `docs/decisions/0003-calibration.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from scrcl_infer.assign import apply_temperature
from scrcl_infer.contract import Calibration
from scrcl_infer.parts import HeldOutAnswers, Rejection
from scrcl_infer.tempering import choose_threshold, compute_kept, fit_temperature
from scrcl_train.classes import fit_classes
from scrcl_train.distil import DistilConfig, DistilEpoch, Targets, distil
from scrcl_train.hiding import choose_weights, compute_auroc, deal_groups, hide
from scrcl_train.rejection import HeldOut, Scale, fit_limit, fit_usual, measure_held_out
from scrcl_train.reliability import compute_calibration_error
from scrcl_train.student import Prediction, Student, predict

N_FOLDS = 7
"""One seventh (14 %) of the cells is held out at a time."""
ENOUGH_HELD_OUT = 300
"""Further folds are fitted until this many cells were held out: a 5 % quantile of fewer is noise."""
MAX_FITS = 3
"""First students at most: small data must not take longer to calibrate than large."""
MAX_KEPT = 2000
"""Held-out cells of which the answers are kept in the bundle, drawn at random where there are more."""


@dataclass(frozen=True)
class Calibrated:
    """What held-out cells tell of the student that will learn all cells."""

    calibration: Calibration
    scale: Scale | None
    """Of strangeness; None where no cell can be held out."""
    held_out: HeldOutAnswers | None = None
    """For types that populations are put together to later; None with labels, and where no cell can be held out."""

    def complete(self, classes: Rejection) -> Rejection | None:
        """Return the classes of the student that learned all cells with the scale; None where there is none."""
        return None if self.scale is None else self.scale.complete(classes)


def calibrate(
    counts: sp.csr_matrix,
    library_size: NDArray[np.float32],
    targets: Targets,
    *,
    config: DistilConfig | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[DistilEpoch], None] | None = None,
) -> Calibrated:
    """Fit the temperature and the scale of strangeness on held-out training cells.

    Parameters
    ----------
    counts, library_size, targets, config, seed, device
        As for `scrcl_train.distil.distil`. With labels the types are calibrated, else the populations.
    on_epoch
        Called after each epoch of each first student.

    Returns
    -------
    Calibrated
        Without a calibration error where there are no labels. Temperature 1 and no scale where no cell can be held
        out, because every type has a single cell.
    """
    labelled = targets.types is not None
    truth = targets.classes
    shown = np.asarray((counts > 0).sum(axis=1)).reshape(-1) > 0  # a cell without counts is unknown in any case
    folds = [(learned, cells[shown[cells]]) for learned, cells in choose_folds(truth, seed=seed) if shown[cells].any()]
    teach = partial(distil, config=config, seed=seed, device=device, on_epoch=on_epoch)
    thin = (config or DistilConfig()).augment.thin
    parts = []
    for learned, held_out in folds:
        student = teach(counts[learned], np.reshape(library_size, -1)[learned], targets.take(learned))
        parts.append(_hold_out(student, counts, library_size, targets, (learned, held_out), thin=thin, seed=seed))
    if not parts:
        return Calibrated(Calibration(temperature=1.0, threshold=0.0, kept_fraction=1.0), None)
    log_posterior = np.concatenate([answer for answer, _ in parts])
    right = np.concatenate([truth[held_out] for _, held_out in folds])
    temperature = fit_temperature(log_posterior, right)
    signs = [part for _, part in parts]
    usual = fit_usual(signs)
    hidden = hide(counts, library_size, targets, folds, teach, thin=thin, seed=seed)
    weights = choose_weights(hidden, usual[-1])
    usual = tuple(at._replace(weights=weights) for at in usual)
    scale = fit_limit(signs, usual)
    posterior = apply_temperature(log_posterior, temperature)
    confidence = posterior.max(axis=1)
    hits = posterior.argmax(axis=1) == right
    error = compute_calibration_error(confidence, hits) if labelled else None
    threshold = choose_threshold(confidence, scale.within)
    kept = compute_kept(confidence, scale.within, threshold)
    auroc, accuracy = compute_auroc(hidden, usual[-1]), float(hits.mean())
    calibration = Calibration(temperature, threshold, kept, error, len(right), auroc, accuracy)
    answers = None if labelled else _keep_some(HeldOutAnswers(log_posterior, right, scale.within), seed)
    return Calibrated(calibration, scale, answers)


def count_students(classes: NDArray[np.int64], *, seed: int = 0) -> int:
    """Return how many students `calibrate` teaches for classes (n,)."""
    folds = choose_folds(classes, seed=seed)
    return len(folds) + len(deal_groups(classes, seed=seed)) if folds else 0


def choose_folds(truth: NDArray[np.int64], *, seed: int = 0) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Choose which cells are learned and which are held out.

    Each type is dealt evenly over `N_FOLDS` folds. One fold is held out, or as many in turn as it takes to reach
    `ENOUGH_HELD_OUT` cells, `MAX_FITS` at most. A cell without a type, or the only one of its type, is always learned.

    Parameters
    ----------
    truth
        (n,) type of each cell, -1 without.

    Returns
    -------
    list
        Pairs (learned, held_out) of sorted cell indices; empty when no cell can be held out.
    """
    rng = np.random.default_rng(seed)
    fold = np.full(truth.size, -1)
    dealt = 0
    for code in np.unique(truth[truth >= 0]):
        cells = rng.permutation(np.flatnonzero(truth == code))
        if cells.size > 1:
            # Dealing goes on where the last type stopped: else fold 0 would get the odd cell of every rare type.
            fold[cells] = (dealt + np.arange(cells.size)) % N_FOLDS
            dealt += cells.size
    if dealt == 0:
        return []
    n_used = min(MAX_FITS, math.ceil(ENOUGH_HELD_OUT / (dealt / N_FOLDS)))
    held = [np.flatnonzero(fold == f) for f in range(n_used)]
    return [(np.flatnonzero(fold != f), cells) for f, cells in enumerate(held) if cells.size]


def _keep_some(answers: HeldOutAnswers, seed: int) -> HeldOutAnswers:
    """Return the answers for `MAX_KEPT` cells, in their order."""
    rng = np.random.default_rng(seed)
    rows = np.sort(rng.permutation(len(answers.population))[:MAX_KEPT])
    return HeldOutAnswers(*(getattr(answers, item.name)[rows] for item in fields(answers)))


def _hold_out(
    student: Student,
    counts: sp.csr_matrix,
    library_size: NDArray[np.float32],
    targets: Targets,
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    *,
    thin: bool,
    seed: int,
) -> tuple[NDArray[np.float32], HeldOut]:
    """Log posteriors of a first student for the cells `rows[1]`, and how far from those of `rows[0]` they lie."""
    learned, held_out = rows
    library = np.reshape(library_size, -1)
    classes = fit_classes(student, predict(student, counts[learned], library[learned]), targets.classes[learned])
    asked = counts[held_out], library[held_out]
    return _best_head(predict(student, *asked)), measure_held_out(student, classes, *asked, thin=thin, seed=seed)


def _best_head(answer: Prediction) -> NDArray[np.float32]:
    """Log posteriors of the types, or of the populations where there is no type head."""
    return answer.log_posterior if answer.log_type_posterior is None else answer.log_type_posterior
