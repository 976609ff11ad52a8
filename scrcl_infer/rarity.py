"""How rare the genes that a cell shows are in each class, by how rare those of the class's own cells are.

A cell of an unknown type shows genes that the nearest class seldom shows. No single one says much, and the principal
components see only those that many training cells share; their mean rarity tells. It asks whether a gene is seen, not
how much of it, so that it means the same for molecules, reads and logarithms.

A gene's rarity in a class is -log p, p the probability that a cell of some depth shows it. How rare the genes of the
class's own cells are depends on their depth, and on which genes the file has at all: that is worked out for each file.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.depth import expect

MAX_RARITY = 127
"""Rarities are whole numbers up to this, what 8 bits hold with a sign, so that their sums are exact."""
RAREST = 1e-4
"""Expected count of a gene from which on down it is as rare as can be."""
STEP = -float(np.log(-np.expm1(-RAREST))) / MAX_RARITY
"""What a whole number stands for, in natural log."""
COMMONEST = 0.25
"""What a rarity of 0 was before it was rounded."""
LEAST_EXPECTED = 1.0
"""Floor of the mean rarity that is expected, so that cells of few and common genes are not strange for a single one
that is less so."""
N_KNOTS = 16
"""Numbers of detected genes at which the mean rarity is worked out."""
DEPTHS = np.geomspace(1.0, 1e7, 64)
"""Expected counts of a cell for which that is done."""
GRID = 2.0**-10
"""It is rounded to that: the last place of an exponential is not the same in every library."""


class UsualRarity(NamedTuple):
    """The mean rarity of the genes of a class's own cells."""

    log_detected: NDArray[np.float32]
    """(r,) rising, log10 of the number of genes that a cell shows."""
    expected: NDArray[np.float64]
    """(C, r)"""


def expect_rarity(table: NDArray[np.uint8], found: NDArray[np.bool_] | None = None) -> UsualRarity:
    r"""Work out what is usual in a file.

    Parameters
    ----------
    table
        (G, C) rarities of the genes in the classes.
    found
        (G,) genes that the file has; None: all.

    Notes
    -----
    With t the counts that the table's depth gives of a gene, -log(1 - exp(-t)) its rarity r, a cell at f times that
    depth shows it with probability p = 1 - exp(-f t) (Poisson), and so \sum p genes, whose mean rarity is
    \sum p r / \sum p.
    """
    knots = np.linspace(0, np.log10(max(len(table), 2)), N_KNOTS)
    kept = table if found is None else table[found]
    expected = [_mean_rarity(column, knots) for column in kept.T.astype(np.float64)]
    rounded = np.rint(np.maximum(expected, LEAST_EXPECTED) / GRID) * GRID
    return UsualRarity(knots.astype(np.float32), rounded)


def _mean_rarity(rarity: NDArray[np.float64], knots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean rarity at the knots of the genes that a class's cells show, from its rarities (G,)."""
    if not rarity.size:
        return np.zeros_like(knots)
    counts = -np.log(-np.expm1(-STEP * np.maximum(rarity, COMMONEST)))
    shown = -np.expm1(-np.outer(DEPTHS / counts.sum(), counts))
    n_shown = shown.sum(axis=1)
    found: NDArray[np.float64] = np.interp(knots, np.log10(n_shown), shown @ rarity / n_shown)
    return found


def compute_rarity(
    rarity: NDArray[np.float32], n_detected: NDArray[np.int64], usual: UsualRarity
) -> NDArray[np.float64]:
    """Return how rare each cell's genes are (N,), 1 where they are as rare as those of some class's own cells.

    Parameters
    ----------
    rarity
        (N, C) sums over the genes that a cell shows.
    n_detected
        (N,) number of these genes.
    usual
        In the file that the cells are of.
    """
    knots, expected = usual
    place = expect(np.arange(len(knots), dtype=np.float32), n_detected, knots)
    before = np.minimum(place.astype(np.int64), len(knots) - 2)
    share = (place - before)[:, None]
    there = (1 - share) * expected.T[before] + share * expected.T[before + 1]
    ratio = rarity.astype(np.float64) / np.maximum(n_detected, 1)[:, None] / there
    least: NDArray[np.float64] = ratio.min(axis=1)
    return least
