"""How rare each gene is among the genes that a class's cells show, and how rare a class's own cells are by that.

A cell of an unknown type shows genes that the nearest class seldom shows. No single one says much, and the principal
components see only those that many training cells share; their mean rarity tells. It asks whether a gene is seen, not
how much of it, so that it means the same for molecules, reads and logarithms. See
`docs/decisions/0003-calibration.md`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

MAX_RARITY = 127
"""Rarities are whole numbers up to this, what 8 bits hold with a sign, so that their sums are exact."""
RAREST = 1e-4
"""Expected count of a gene from which on down it is as rare as can be."""
SATURATION = 3.0
"""Times the median library size at which the expected counts are taken: genes that most cells show say little, but not
nothing. 1 and 10 do as well."""
PRIOR_CELLS = 5.0
"""As many cells with the mean of all are counted among a class's own, whose few do not show what they may."""
N_KNOTS = 16
"""Numbers of detected genes at which the usual rarity is told."""
DEPTHS = np.geomspace(1.0, 1e7, 64)
"""Counts of a cell for which that is worked out."""


@dataclass(frozen=True)
class Rarity:
    """Of G genes in C classes."""

    table: NDArray[np.float32]
    """(G, C) whole numbers in [0, `MAX_RARITY`]."""
    log_detected: NDArray[np.float32]
    """(r,) rising, log10 of numbers of detected genes."""
    expected: NDArray[np.float32]
    """(C, r) mean rarity of the genes that a cell of the class shows which shows so many; 1 or more, so that cells of
    few and common genes are not strange for a single one that is less so."""


def fit_rarity(counts: sp.csr_matrix, library_size: NDArray[np.float32], classes: NDArray[np.int64]) -> Rarity:
    r"""Fit the rarity of every gene in every class.

    Parameters
    ----------
    counts
        (n, G) raw counts, or values that are proportional to them within each cell.
    library_size
        (n,) or (n, 1) total over all genes.
    classes
        (n,) class of each cell, -1 for cells to leave out; the classes that occur are numbered anew in their order.

    Notes
    -----
    With \mu the mean share of a cell's counts that a gene has in a class, and s counts in all, the gene is seen with
    probability p = 1 - exp(-\mu s) (Poisson). Its rarity is -log p at s of `SATURATION` times the median library size.
    A cell of the class with s counts shows \sum p genes, whose mean rarity is \sum p r / \sum p.
    """
    rates = _class_rates(counts, np.reshape(library_size, -1), classes)
    typical = SATURATION * max(float(np.median(library_size)), 1e-12)
    rarity = -np.log(-np.expm1(-np.maximum(typical * rates, RAREST)))
    table = np.rint(rarity * (MAX_RARITY / -np.log(-np.expm1(-RAREST))))
    knots = np.linspace(0, np.log10(max(counts.shape[1], 2)), N_KNOTS)
    expected = [_expect(rate, row, knots) for rate, row in zip(rates, table, strict=True)]
    parts = np.ascontiguousarray(table.T), knots, np.maximum(expected, 1.0)
    return Rarity(*(part.astype(np.float32) for part in parts))


def nothing_rare(n_genes: int) -> Rarity:
    """Return that of one class in which no gene is rare."""
    real = np.float32
    return Rarity(np.zeros((n_genes, 1), real), np.arange(2, dtype=real), np.ones((1, 2), real))


def _class_rates(
    counts: sp.csr_matrix, library_size: NDArray[np.float32], classes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Mean share (C, G) of the cells' counts that each gene has in each class, with `PRIOR_CELLS`."""
    known = np.flatnonzero(classes >= 0)
    _, codes = np.unique(classes[known], return_inverse=True)
    shares = sp.csr_matrix(counts[known], dtype=np.float64, copy=True)
    shares.data /= np.repeat(np.maximum(library_size[known].astype(np.float64), 1e-6), np.diff(shares.indptr))
    member = sp.csr_matrix((np.ones(codes.size), (codes, np.arange(codes.size))))
    sums, sizes = (member @ shares).toarray(), np.bincount(codes)[:, None]
    overall = sums.sum(axis=0) / sizes.sum()
    rates: NDArray[np.float64] = (sums + PRIOR_CELLS * overall) / (sizes + PRIOR_CELLS)
    return rates


def _expect(rate: NDArray[np.float64], rarity: NDArray[np.float64], knots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean rarity at the knots of the genes that a class's cells show, from its rates and rarities, (G,) each."""
    # Not 0 everywhere: a cell of a class in which no gene is seen shows none.
    shown = -np.expm1(-np.outer(DEPTHS / max(rate.sum(), 1e-300), rate))
    n_shown = np.maximum(shown.sum(axis=1), 1e-300)
    found: NDArray[np.float64] = np.interp(knots, np.log10(n_shown), shown @ rarity / n_shown)
    return found
