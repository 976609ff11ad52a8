"""Find counts again in values that are counts scaled cell by cell: in most files that hold logarithms only.

The smallest value of nearly every cell is one count, and the others are whole multiples of it. With counts cells can be
drawn anew at other depths while the encoder learns; rates, and all that follows from them, stay as they were.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scrcl_infer.multiples import Units, find_units

CELLS_AT_ONCE = 4096
"""Cells looked at together; the answer does not depend on it."""


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
        (n, g) what each cell's counts were multiplied by the cell's own factor to.
    library_size
        (n,) its total in the same units.
    """
    rows = sp.csr_matrix(values, dtype=np.float32, copy=True)
    rows.eliminate_zeros()
    lengths = np.diff(rows.indptr)
    if not lengths.all():
        return None
    blocks = []
    for start in range(0, len(lengths), CELLS_AT_ONCE):
        indptr = rows.indptr[start : start + CELLS_AT_ONCE + 1]
        inside = slice(indptr[0], indptr[-1])
        found = find_units(rows.data[inside], indptr - indptr[0])
        rows.data[inside] /= np.repeat(found.unit, np.diff(indptr)).astype(np.float32)
        blocks.append(found)
    cells = Units(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))
    return Recounted(rows, (library_size / cells.unit).astype(np.float32)) if cells.are_counts else None
