"""Find what is strange: the training cells' classes, and the signs that held-out cells show at every depth.

`scrcl_infer.strangeness` measures cells against what is fitted here. See `docs/decisions/0003-calibration.md`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from scrcl_infer.parts import Rejection
from scrcl_infer.strangeness import (
    N_SIGNS,
    Spaces,
    Usual,
    add_signs,
    compute_class_distances,
    compute_signs,
    expect,
)
from scrcl_infer.tempering import KEPT_FRACTION
from scrcl_train.augment import AugmentConfig, CellSampler
from scrcl_train.student import Prediction, Student, predict

SHRINKAGE = 0.1
"""Of the covariance within classes towards the same variance in every direction: some classes have few cells."""
N_KNOTS = 6
KNOT_RANGE = (0.02, 0.98)
"""Quantiles of the logarithm of the detected genes between which the knots lie, evenly."""
WIDE = AugmentConfig(min_kept=0.03, max_gene_dropout=0.8)
N_VIEWS = 6
"""Times that each held-out cell is drawn anew, at another depth and with other genes missing."""
MIN_SPREAD = (1e-3, 1e-3, 1e-3, 0.1)
"""Floor of the spreads: distances are in units of what is usual in the class, doubt is a logarithm."""
RADIUS_CELLS = 30
"""As many cells at the median distance of all are counted among a class's own, whose few say little."""
MIN_RADIUS = 1e-6


@dataclass(frozen=True)
class Signs:
    """What `scrcl_infer.strangeness.compute_signs` tells of n cells."""

    values: NDArray[np.float64]
    """(n, 4)"""
    n_detected: NDArray[np.int64]
    """(n,) the model's genes of which the cell has a count; 1 or more."""


@dataclass(frozen=True)
class HeldOut:
    """Signs of held-out cells, from the student that did not learn them."""

    measured: Signs
    changed: Signs
    """The same cells, each `N_VIEWS` times at another depth and with genes missing."""


@dataclass(frozen=True)
class Scale:
    """What turns signs into strangeness; see `scrcl_infer.parts.Rejection` for the arrays."""

    usual: Usual
    limit: NDArray[np.float32]
    within: NDArray[np.bool_]
    """(m,) whether each held-out cell, as measured, is within the limit."""

    def complete(self, classes: Rejection) -> Rejection:
        """Return the classes of another student with this scale."""
        return replace(classes, **self.usual._asdict(), limit=self.limit)


def spaces_of(answer: Prediction) -> Spaces:
    """Return where a student puts cells; the classes are its types, or its populations where it has no type head."""
    types = answer.log_type_posterior
    return Spaces(answer.embedding, answer.components, answer.log_posterior if types is None else types)


def fit_classes(answer: Prediction, classes: NDArray[np.int64]) -> Rejection:
    """Fit class means, the spread within classes, and how far the classes' own cells usually lie.

    Parameters
    ----------
    answer
        Of a student, for cells that it has learned (n cells).
    classes
        (n,) types, or populations where the student has no type head; -1 for cells to leave out.

    Returns
    -------
    Rejection
        With a scale that says nothing: medians 0, spreads and weights 1, and a limit of 0.
    """
    known = classes >= 0
    _, codes = np.unique(classes[known], return_inverse=True)
    spaces, real = Spaces(*(space[known] for space in spaces_of(answer))), np.float32
    whitening, means = _whiten(spaces.embedding.astype(np.float64), codes)
    turned, centres = _whiten(spaces.components[:, 1:-1].astype(np.float64), codes)
    profiles = _class_means(spaces.components[:, :-1].astype(np.float64), codes)
    profiles /= np.maximum(np.linalg.norm(profiles, axis=1, keepdims=True), MIN_RADIUS)
    even, blank = np.ones(len(means), real), np.zeros((1, N_SIGNS), real)
    found = Rejection(
        whitening.astype(real), means.astype(real), even, turned.astype(real), centres.astype(real), even,
        profiles.astype(real), even, np.zeros(1, real), blank, blank + 1, blank + 1, np.zeros(1, real),
    )  # fmt: skip
    radii = [_fit_radii(distances, codes) for distances in compute_class_distances(spaces, found)]
    return replace(found, embedding_radii=radii[0], components_radii=radii[1], profile_radii=radii[2])


def measure_held_out(
    student: Student,
    classes: Rejection,
    counts: sp.csr_matrix,
    library_size: NDArray[np.float32],
    *,
    thin: bool = True,
    seed: int = 0,
) -> HeldOut:
    """Measure cells that a student has not learned, as they are and changed as far as `WIDE` goes.

    Parameters
    ----------
    student, classes
        The student, and what `fit_classes` found of the cells that it learned.
    counts, library_size
        (m, G) and (m,) of the held-out cells.
    thin
        Draw new counts at other depths; False for values that are no counts.
    seed
        Of the draws.
    """
    sampler = CellSampler(counts, library_size, torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    changed = []
    for _ in range(N_VIEWS):
        for rows in torch.split(torch.arange(sampler.n_cells), 1024):
            block, library = sampler.sample(rows, replace(WIDE, thin=thin), generator)
            changed.append(_measure(student, classes, sp.csr_matrix(block.numpy()), library.numpy()))
    return HeldOut(_measure(student, classes, counts, library_size), join(changed))


def _measure(student: Student, classes: Rejection, counts: sp.csr_matrix, library_size: NDArray[np.float32]) -> Signs:
    """Return the signs of those of the cells, (m, G) and (m,), that have counts."""
    n_detected = np.asarray((counts > 0).sum(axis=1), dtype=np.int64).reshape(-1)
    shown = n_detected > 0
    answer = predict(student, counts[shown], np.reshape(library_size, -1)[shown])
    return Signs(compute_signs(spaces_of(answer), classes), n_detected[shown])


def join(parts: list[Signs]) -> Signs:
    """Put the cells of several parts behind each other."""
    return Signs(np.concatenate([p.values for p in parts]), np.concatenate([p.n_detected for p in parts]))


def fit_usual(held_out: list[HeldOut]) -> Usual:
    """Find median and spread of held-out cells' signs as functions of the genes detected; all signs weigh 1.

    At each knot they are quantiles of the cells about it, weighted by a tent that falls to zero at its neighbours.

    Parameters
    ----------
    held_out
        One part for each first student, at least one cell in all.
    """
    both = join([signs for part in held_out for signs in (part.measured, part.changed)])
    log_detected = np.log10(both.n_detected)
    lowest, highest = (float(np.quantile(log_detected, share)) for share in KNOT_RANGE)
    knots = np.unique(np.linspace(lowest, highest, N_KNOTS).astype(np.float32))
    tents = compute_tents(both, knots)
    median = _quantiles(both.values, tents)
    spread = np.stack([_quantiles(np.abs(both.values - m), t[None])[0] for m, t in zip(median, tents, strict=True)])
    real = np.float32
    return Usual(knots, median.astype(real), np.maximum(spread, MIN_SPREAD).astype(real), np.ones(median.shape, real))


def fit_limit(held_out: list[HeldOut], usual: Usual) -> Scale:
    """Find the limit that holds `KEPT_FRACTION` of the held-out cells at every depth.

    At each knot it is that quantile of the cells about it. It is then raised, where need be, until as many of the cells
    are within it, of those as measured as well as of those changed.

    Parameters
    ----------
    held_out, usual
        The same as of `fit_usual`, and what it found, with the weights of the signs.
    """
    measured, changed = join([part.measured for part in held_out]), join([part.changed for part in held_out])
    both, n, real = join([measured, changed]), len(measured.n_detected), np.float32
    score = add_signs(both.values, both.n_detected, usual)
    tents = compute_tents(both, usual.log_detected)
    limit = np.array([quantile(score, tent, KEPT_FRACTION) for tent in tents], dtype=real)
    excess = score - expect(limit, both.n_detected, usual.log_detected)
    parts = [part for part in (excess[:n], excess[n:]) if part.size]
    missing = max(0.0, *(quantile(part, np.ones(len(part)), KEPT_FRACTION) for part in parts))
    # A hair more: rounding to single precision must not put a cell that is at the limit outside.
    limit = (limit + real(missing + 1e-3)).astype(real)
    return Scale(usual, limit, score[:n] <= expect(limit, measured.n_detected, usual.log_detected))


def compute_tents(signs: Signs, knots: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the weights (m, n) of the cells at each knot: 1 there, falling to 0 at the knots beside it."""
    return np.stack([np.interp(np.log10(signs.n_detected), knots, row) for row in np.eye(len(knots))])


def _quantiles(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Medians (m, 4) of columns (n, 4) under m weightings (m, n)."""
    return np.array([[quantile(column, weight, 0.5) for column in values.T] for weight in weights])


def quantile(values: NDArray[np.float64], weights: NDArray[np.float64], share: float) -> float:
    """Return the smallest value that at least `share` of the weight lies at or below.

    Parameters
    ----------
    values, weights
        (n,) each; weights are not negative and not all zero.
    """
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(below, share * below[-1] - 1e-9)])


def _fit_radii(distances: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Mean distance (C,) of each class's cells from it, of distances (n, C); see `RADIUS_CELLS`."""
    own = distances[np.arange(codes.size), codes]
    sums, sizes = np.bincount(codes, own), np.bincount(codes)
    radii = (sums + RADIUS_CELLS * np.median(own)) / (sizes + RADIUS_CELLS)
    floored: NDArray[np.float32] = np.maximum(radii, MIN_RADIUS).astype(np.float32)
    return floored


def _class_means(values: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    member = sp.csr_matrix((np.ones(codes.size), (codes, np.arange(codes.size))))
    return np.asarray(member @ values) / np.bincount(codes)[:, None]


def _whiten(values: NDArray[np.float64], codes: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return W (D, D) with W Wᵀ the inverse of the shrunk covariance within classes, and the class means @ W (C, D)."""
    means = _class_means(values, codes)
    residual = values - means[codes]
    covariance = residual.T @ residual / max(codes.size - len(means), 1)
    n_columns = values.shape[1]
    variance = np.trace(covariance) / n_columns
    if variance <= 0:  # a single class, or cells that are all alike
        return np.eye(n_columns), means
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * variance * np.eye(n_columns)
    roots, vectors = np.linalg.eigh(covariance)
    whitening = vectors / np.sqrt(roots)
    return whitening, means @ whitening
