"""Find counts again in values that are counts scaled cell by cell: in most files that hold logarithms only.

The smallest value of nearly every cell is one count, and the others are whole multiples of it. With counts cells can be
drawn anew at other depths while the encoder learns; rates, and all that follows from them, stay as they were.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

TELLING = (1.5, 50.0)
"""Multiples between these tell: smaller ones are the unit itself, larger ones are blurred by single precision."""
NEAR = 0.02
"""A multiple is whole when it is this near to a whole number ..."""
MOSTLY = 0.95
"""... a cell's values are when so many of those that tell are, of three or more; a file's when so many cells' are."""


class Recounted(NamedTuple):
    """Counts and library sizes in units of one count."""

    counts: sp.csr_matrix
    """(n, g) float32; whole up to the precision of what was stored."""
    library_size: NDArray[np.float32]
    """(n,)"""


def find_counts(values: sp.csr_matrix, library_size: NDArray[np.float32]) -> Recounted | None:
    """Return the counts that scaled values come from; None where they do not look like any.

    Parameters
    ----------
    values
        (n, g) what each cell's counts were multiplied by the cell's own factor to; every cell has a value above 0.
    library_size
        (n,) its total in the same units.
    """
    rows = sp.csr_matrix(values, dtype=np.float64, copy=True)
    rows.eliminate_zeros()
    lengths = np.diff(rows.indptr)
    if not lengths.all():
        return None
    unit = np.minimum.reduceat(rows.data, rows.indptr[:-1])
    cell = np.repeat(np.arange(len(lengths)), lengths)
    multiples = rows.data / unit[cell]
    tells = (multiples > TELLING[0]) & (multiples < TELLING[1])
    whole = tells & (np.abs(multiples - np.rint(multiples)) < NEAR)
    n_telling, n_whole = (np.bincount(cell, weights=flags, minlength=len(lengths)) for flags in (tells, whole))
    looked = n_telling >= 3
    if looked.sum() < 3 or np.mean(n_whole[looked] >= MOSTLY * n_telling[looked]) < MOSTLY:
        return None
    rows.data = multiples
    return Recounted(rows.astype(np.float32), (library_size / unit).astype(np.float32))
