"""Find what is strange: the signs that held-out cells show at every depth, with all genes and with some.

`scrcl_infer.strangeness` measures cells against what is fitted here. See `docs/decisions/0003-calibration.md`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray

from scrcl_infer.depth import expect
from scrcl_infer.parts import Rejection
from scrcl_infer.rarity import expect_rarity
from scrcl_infer.strangeness import Usual, add_signs, compute_signs
from scrcl_infer.tempering import KEPT_FRACTION
from scrcl_train.augment import AugmentConfig, CellSampler
from scrcl_train.classes import spaces_of
from scrcl_train.student import Student, predict

N_KNOTS = 6
KNOT_RANGE = (0.02, 0.98)
"""Quantiles of the logarithm of the detected genes between which the knots lie, evenly."""
MIN_KEPT = 0.03
"""Share of the counts down to which held-out cells are thinned."""
VIEWS = {0.2: 2, 0.6: 2, 1.0: 4}
"""Times that each held-out cell is drawn anew at another depth and with so large a share of the genes, by that share.
Most files have all genes."""
ELSEWHERE = 0.01
"""What a cell counts for other shares than its own: at some depths there may be none of these."""
SMOOTHING = 1 / 3
"""Standard deviation of the window in which the limit at a knot is found, of the knots' range: a quantile near the end
of the distribution needs more cells than a median."""
MIN_SPREAD = (1e-3, 1e-3, 1e-3, 1e-3, 0.1)
"""Floor of the spreads: distances and rarity are in units of what is usual in the class, doubt is a logarithm."""


@dataclass(frozen=True)
class Signs:
    """What `scrcl_infer.strangeness.compute_signs` tells of n cells."""

    values: NDArray[np.float64]
    """(n, 5)"""
    n_detected: NDArray[np.int64]
    """(n,) the model's genes of which the cell has a count; 1 or more."""


@dataclass(frozen=True)
class HeldOut:
    """Signs of held-out cells, from the student that did not learn them."""

    measured: Signs
    changed: tuple[Signs, ...]
    """The same cells several times at another depth, for each share of the genes that they keep; the last is all."""

    @property
    def whole(self) -> Signs:
        """Those with all genes, as measured and at other depths."""
        return join([self.measured, self.changed[-1]])


@dataclass(frozen=True)
class Scale:
    """What turns signs into strangeness; see `scrcl_infer.parts.Rejection` for the arrays."""

    usual: tuple[Usual, ...]
    """One for each of `VIEWS`; knots and weights are the same."""
    limit: NDArray[np.float32]
    within: NDArray[np.bool_]
    """(m,) whether each held-out cell, as measured, is within the limit."""

    def complete(self, classes: Rejection) -> Rejection:
        """Return the classes of another student with this scale."""
        median, spread = (np.stack([getattr(usual, name) for usual in self.usual]) for name in ("median", "spread"))
        log_detected, _, _, weights = self.usual[-1]
        overlap = np.array(list(VIEWS), np.float32)
        return replace(
            classes, log_detected=log_detected, overlap=overlap, median=median, spread=spread, weights=weights,
            limit=self.limit,
        )  # fmt: skip


def measure_held_out(
    student: Student,
    classes: Rejection,
    counts: sp.csr_matrix,
    library_size: NDArray[np.float32],
    *,
    overlaps: Iterable[float] = tuple(VIEWS),
    thin: bool = True,
    seed: int = 0,
) -> HeldOut:
    """Measure cells that a student has not learned, as they are and changed.

    Parameters
    ----------
    student, classes
        The student, and what `fit_classes` found of the cells that it learned.
    counts, library_size
        (m, G) and (m,) of the held-out cells.
    overlaps
        Shares of the genes that they keep, of `VIEWS`; the last is 1.
    thin
        Draw new counts at other depths; False for values that are no counts.
    seed
        Of the draws.
    """
    sampler = CellSampler(counts, library_size, torch.device("cpu"))
    generator = torch.Generator().manual_seed(seed)
    pick, config = np.random.default_rng(seed), AugmentConfig(thin, MIN_KEPT, max_gene_dropout=0.0)

    def draw(overlap: float, view: int) -> Signs:
        """As a file would give them that has so large a share of the genes; of every other the totals are smaller."""
        found = pick.permutation(sampler.n_genes) < max(round(overlap * sampler.n_genes), 1)
        parts = []
        for rows in torch.split(torch.arange(sampler.n_cells), 1024):
            block, library = (part.numpy() for part in sampler.sample(rows, config, generator))
            left = block * found
            if view % 2:
                library = library * left.sum(axis=1, keepdims=True) / np.maximum(block.sum(axis=1, keepdims=True), 1e-6)
            parts.append(_measure(student, classes, sp.csr_matrix(left), library, found))
        return join(parts)

    changed = tuple(join([draw(overlap, view) for view in range(VIEWS[overlap])]) for overlap in overlaps)
    return HeldOut(_measure(student, classes, counts, library_size), changed)


def _measure(
    student: Student,
    classes: Rejection,
    counts: sp.csr_matrix,
    library_size: NDArray[np.float32],
    found: NDArray[np.bool_] | None = None,
) -> Signs:
    """Return the signs of those of the cells, (m, G) and (m,), that have counts, of a file with the genes `found`."""
    n_detected = np.asarray((counts > 0).sum(axis=1), dtype=np.int64).reshape(-1)
    shown = n_detected > 0
    answer = predict(student, counts[shown], np.reshape(library_size, -1)[shown])
    usual = expect_rarity(classes.rarity, found)
    return Signs(compute_signs(spaces_of(answer), n_detected[shown], classes, usual), n_detected[shown])


def join(parts: list[Signs]) -> Signs:
    """Put the cells of several parts behind each other."""
    return Signs(np.concatenate([p.values for p in parts]), np.concatenate([p.n_detected for p in parts]))


def fit_usual(held_out: list[HeldOut]) -> tuple[Usual, ...]:
    """Find median and spread of held-out cells' signs as functions of the genes detected; all signs weigh 1.

    At each knot they are quantiles of the cells about it, weighted by a tent that falls to zero at its neighbours.

    Parameters
    ----------
    held_out
        One part for each first student, at least one cell in all.

    Returns
    -------
    tuple
        For each of `VIEWS`, with the same knots.
    """
    both, shares = _pool(held_out)
    log_detected = np.log10(both.n_detected)
    lowest, highest = (float(np.quantile(log_detected, share)) for share in KNOT_RANGE)
    knots = np.unique(np.linspace(lowest, highest, N_KNOTS).astype(np.float32))
    tents, found, real = compute_tents(both, knots), [], np.float32
    for share in shares:
        near = tents * share
        median = _quantiles(both.values, near)
        spread = np.stack([_quantiles(np.abs(both.values - m), t[None])[0] for m, t in zip(median, near, strict=True)])
        spread = np.maximum(spread, MIN_SPREAD).astype(real)
        found.append(Usual(knots, median.astype(real), spread, np.ones(median.shape, real)))
    return tuple(found)


def fit_limit(held_out: list[HeldOut], usual: tuple[Usual, ...]) -> Scale:
    """Find the limit that holds `KEPT_FRACTION` of the held-out cells at every depth.

    At each knot it is that quantile of the cells in a window about it. It is then raised, where need be, until as many
    of the cells are within it, of those as measured as well as of those changed.

    Parameters
    ----------
    held_out, usual
        The same as of `fit_usual`, and what it found, with the weights of the signs.
    """
    both, shares = _pool(held_out)
    knots, real, limits = usual[-1].log_detected, np.float32, []
    width = SMOOTHING * max(float(knots[-1] - knots[0]), 1e-3)
    windows = np.exp(-0.5 * ((np.log10(both.n_detected) - knots[:, None]) / width) ** 2)
    measured = join([part.measured for part in held_out])
    for view, share in enumerate(shares):
        score = add_signs(both.values, both.n_detected, usual[view])
        limit = np.array([quantile(score, window * share, KEPT_FRACTION) for window in windows], dtype=real)
        groups = [join([part.changed[view] for part in held_out]), *([measured] if view == len(shares) - 1 else [])]
        excess = [_exceed(group, usual[view], limit) for group in groups if group.n_detected.size]
        missing = max([0.0, *(quantile(part, np.ones(len(part)), KEPT_FRACTION) for part in excess)])
        # A hair more: rounding to single precision must not put a cell that is at the limit outside.
        limits.append((limit + real(missing + 1e-3)).astype(real))
    return Scale(usual, np.stack(limits), _exceed(measured, usual[-1], limits[-1]) <= 0)


def _pool(held_out: list[HeldOut]) -> tuple[Signs, list[NDArray[np.float64]]]:
    """Return all cells (n), and for each of `VIEWS` what they count (n,)."""
    views = [join([part.changed[view] for part in held_out]) for view in range(len(VIEWS) - 1)]
    views.append(join([part.whole for part in held_out]))
    of = np.repeat(np.arange(len(views)), [len(view.n_detected) for view in views])
    return join(views), [np.where(of == view, 1.0, ELSEWHERE) for view in range(len(views))]


def _exceed(cells: Signs, usual: Usual, limit: NDArray[np.float32]) -> NDArray[np.float64]:
    """By how much the sums of cells' signs exceed the limit (m,) at the knots, (n,)."""
    score = add_signs(cells.values, cells.n_detected, usual)
    return score - expect(limit, cells.n_detected, usual.log_detected)


def compute_tents(signs: Signs, knots: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the weights (m, n) of the cells at each knot: 1 there, falling to 0 at the knots beside it."""
    return np.stack([np.interp(np.log10(signs.n_detected), knots, row) for row in np.eye(len(knots))])


def _quantiles(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Medians (m, 5) of columns (n, 5) under m weightings (m, n)."""
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
