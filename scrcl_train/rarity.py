"""How rare each gene is in each class of the training cells; see `scrcl_infer.rarity` for what comes of it."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scrcl_infer.rarity import RAREST, STEP

SATURATION = 3.0
"""Times the median library size at which the expected counts are taken: genes that most cells show say little, but not
nothing. 1 and 10 do as well."""
PRIOR_CELLS = 5.0
"""As many cells with the mean of all are counted among a class's own, whose few do not show what they may."""


def fit_rarity(
    counts: sp.csr_matrix, library_size: NDArray[np.float32], classes: NDArray[np.int64]
) -> NDArray[np.uint8]:
    r"""Fit the rarity of every gene in every class.

    Parameters
    ----------
    counts
        (n, G) raw counts, or values that are proportional to them within each cell.
    library_size
        (n,) or (n, 1) total over all genes.
    classes
        (n,) class of each cell, -1 for cells to leave out; the classes that occur are numbered anew in their order.
        All -1: one class.

    Returns
    -------
    NDArray
        (G, C) in [0, `scrcl_infer.rarity.MAX_RARITY`].

    Notes
    -----
    With \mu the mean share of a cell's counts that a gene has in a class, and s counts in all, the gene is seen with
    probability p = 1 - exp(-\mu s) (Poisson). Its rarity is -log p at s of `SATURATION` times the median library size.
    """
    library = np.reshape(library_size, -1)
    typical = SATURATION * max(float(np.median(library)), 1e-12)
    counted = np.maximum(typical * _class_rates(counts, library, classes), RAREST)
    return np.rint(-np.log(-np.expm1(-counted)) / STEP).astype(np.uint8).T.copy()


def _class_rates(
    counts: sp.csr_matrix, library_size: NDArray[np.float32], classes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Mean share (C, G) of the cells' counts that each gene has in each class, with `PRIOR_CELLS`."""
    known = np.flatnonzero(classes >= 0 if (classes >= 0).any() else classes < 0)  # without classes all cells are one
    _, codes = np.unique(classes[known], return_inverse=True)
    shares = sp.csr_matrix(counts[known], dtype=np.float64, copy=True)
    shares.data /= np.repeat(np.maximum(library_size[known].astype(np.float64), 1e-6), np.diff(shares.indptr))
    member = sp.csr_matrix((np.ones(codes.size), (codes, np.arange(codes.size))))
    sums, sizes = (member @ shares).toarray(), np.bincount(codes)[:, None]
    overall = sums.sum(axis=0) / sizes.sum()
    rates: NDArray[np.float64] = (sums + PRIOR_CELLS * overall) / (sizes + PRIOR_CELLS)
    return rates
