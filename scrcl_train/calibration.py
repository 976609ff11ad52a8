"""Make probabilities mean what they say, and find the score below which a cell is unknown.

The figures come from training cells that a student has not seen: some are held out, a first student learns the others,
and its answers for the held-out ones set the temperature and the threshold. The exported student then learns all cells.
See `docs/decisions/0003-calibration.md`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from scrcl_infer.assign import apply_temperature, compute_rejection_score
from scrcl_infer.contract import Calibration
from scrcl_train.augment import AugmentConfig, CellSampler
from scrcl_train.distil import DistilConfig, DistilEpoch, Targets, distil
from scrcl_train.populations import fit_centroids, order_by_size
from scrcl_train.reliability import compute_calibration_error
from scrcl_train.student import Prediction, Student, predict

N_FOLDS = 7
"""One seventh (14 %) of the cells is held out at a time."""
ENOUGH_HELD_OUT = 300
"""Further folds are fitted until this many cells were held out: a 5 % quantile of fewer is noise."""
MAX_FITS = 3
"""First students at most: small data must not take longer to calibrate than large."""
KEPT_FRACTION = 0.95
HARDER = AugmentConfig(min_kept=0.3, max_gene_dropout=0.3)
"""Another batch is shallower and lacks genes: half of the cells that set the threshold are made so."""
TEMPERATURES = (1.0, 20.0)
"""Never below 1: where no held-out cell is wrong the best temperature is 0, and new cells are harder than those."""
SLACK = 1e-6
"""Taken off the threshold, so that a tie at it (many cells at probability 1) is not decided by rounding."""


@dataclass(frozen=True)
class HeldOut:
    """Answers for cells that the answering student had not learned (m cells)."""

    log_posterior: NDArray[np.float32]
    """(m, T) over types; over populations where there are no labels."""
    truth: NDArray[np.int64]
    """(m,) index of the right column."""
    score: Callable[[float], NDArray[np.float64]]
    """Rejection scores (m,) at a temperature."""
    harder_score: Callable[[float], NDArray[np.float64]]
    """The same of the same cells made harder, as those of another batch are."""


def calibrate(
    counts: sp.csr_matrix,
    library_size: NDArray[np.float32],
    targets: Targets,
    *,
    config: DistilConfig | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[DistilEpoch], None] | None = None,
) -> Calibration:
    """Fit temperature and threshold on held-out training cells.

    Parameters
    ----------
    counts, library_size, targets, config, seed, device
        As for `scrcl_train.distil.distil`. With labels the types are calibrated, else the populations.
    on_epoch
        Called after each epoch of each first student.

    Returns
    -------
    Calibration
        Without a calibration error where there are no labels. Temperature 1 and threshold 0 where no cell can be held
        out, because every type has a single cell.
    """
    labelled = targets.types is not None
    truth = targets.types if targets.types is not None else targets.populations
    parts = []
    for learned, held_out in choose_folds(truth, seed=seed):
        student = distil(
            counts[learned],
            np.reshape(library_size, -1)[learned],
            targets.take(learned),
            config=config,
            seed=seed,
            device=device,
            on_epoch=on_epoch,
        )
        thin = (config or DistilConfig()).augment.thin
        part = _hold_out(student, counts, library_size, targets, (learned, held_out), thin=thin, seed=seed)
        parts.append(part)
    if not parts:
        return Calibration(temperature=1.0, threshold=0.0, kept_fraction=1.0)
    log_posterior = np.concatenate([part.log_posterior for part in parts])
    right = np.concatenate([part.truth for part in parts])
    temperature = fit_temperature(log_posterior, right)
    scores = np.concatenate([part.score(temperature) for part in parts])
    harder = np.concatenate([part.harder_score(temperature) for part in parts])
    threshold = fit_threshold(np.concatenate([scores, harder]))
    error = None
    if labelled:
        posterior = apply_temperature(log_posterior, temperature)
        error = compute_calibration_error(posterior.max(axis=1), posterior.argmax(axis=1) == right)
    return Calibration(temperature, threshold, float(np.mean(scores >= threshold)), error, len(right))


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


def fit_temperature(log_posterior: NDArray[np.float32], truth: NDArray[np.int64]) -> float:
    r"""Fit the temperature T that minimises the mean negative log likelihood (Guo et al. 2017).

    .. math:: -\frac{1}{m} \sum_i \log \mathrm{softmax}(l_i / T)_{y_i}

    Parameters
    ----------
    log_posterior
        (m, C)
    truth
        (m,) in [0, C).
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logits = log_posterior.astype(np.float64)
    chosen = logits[np.arange(truth.size), truth]

    def loss(log_t: float) -> float:
        t = math.exp(log_t)
        return float(np.mean(logsumexp(logits / t, axis=1) - chosen / t))

    bounds = (math.log(TEMPERATURES[0]), math.log(TEMPERATURES[1]))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(math.exp(found.x))


def fit_threshold(scores: NDArray[np.float64], *, kept_fraction: float = KEPT_FRACTION) -> float:
    """Return the highest score (less a rounding slack) at or above which at least `kept_fraction` of the cells lie."""
    # 1e-9: (1 - 0.95) * 100 is 5.000000000000004, and must not become 6 or 4
    n_below = math.floor((1 - kept_fraction) * scores.size + 1e-9)
    return max(float(np.sort(scores)[n_below]) - SLACK, 0.0)


def _hold_out(
    student: Student,
    counts: sp.csr_matrix,
    library_size: NDArray[np.float32],
    targets: Targets,
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    *,
    thin: bool,
    seed: int,
) -> HeldOut:
    """Answers of a first student for the cells `rows[1]`, with the centroids of the cells `rows[0]` that it learned."""
    learned, held_out = rows
    library = np.reshape(library_size, -1)
    seen = order_by_size(targets.populations[learned])
    centroids = fit_centroids(
        predict(student, counts[learned], library[learned]).embedding, seen.labels, seen.n_populations
    )
    asked = counts[held_out], library[held_out]
    clean, harder = predict(student, *asked), predict(student, *_make_harder(*asked, thin=thin, seed=seed))

    def score(answer: Prediction, temperature: float) -> NDArray[np.float64]:
        return compute_rejection_score(apply_temperature(_best_head(answer), temperature), answer.embedding, centroids)

    truth = targets.types if targets.types is not None else targets.populations
    return HeldOut(_best_head(clean), truth[held_out], partial(score, clean), partial(score, harder))


def _best_head(answer: Prediction) -> NDArray[np.float32]:
    """Log posteriors of the types, or of the populations where there is no type head."""
    return answer.log_posterior if answer.log_type_posterior is None else answer.log_type_posterior


def _make_harder(
    counts: sp.csr_matrix, library_size: NDArray[np.float32], *, thin: bool, seed: int
) -> tuple[sp.csr_matrix, NDArray[np.float32]]:
    """Draw cells anew at less depth and with genes missing, as far as `HARDER` goes."""
    sampler = CellSampler(counts, library_size, torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    blocks, libraries = [], []
    for rows in torch.split(torch.arange(sampler.n_cells), 1024):
        block, library = sampler.sample(rows, replace(HARDER, thin=thin), generator)
        blocks.append(sp.csr_matrix(block.numpy()))
        libraries.append(library.numpy().reshape(-1))
    return sp.csr_matrix(sp.vstack(blocks)), np.concatenate(libraries)
