"""Whether each cell's values are whole multiples of its smallest one, as counts are that were scaled cell by cell."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

TELLING = (1.5, 50.0)
"""Multiples between these tell: smaller ones are the unit itself, larger ones are blurred by single precision."""
FEWEST = 3
"""Multiples of a cell that must tell, and cells that must have so many."""
NEAR = 0.02
"""A multiple is whole when it is this near to a whole number."""
MOST_VALUES, MOST_CELLS = 0.95, 0.8
"""A cell is of whole multiples when so many of those that tell are whole; a matrix when so many of its cells are."""


class Units(NamedTuple):
    """What n cells show."""

    unit: NDArray[np.float64]
    """(n,) smallest value."""
    tells: NDArray[np.bool_]
    """(n,) whether enough of its values tell."""
    whole: NDArray[np.bool_]
    """(n,) whether those are whole multiples."""

    @property
    def are_counts(self) -> bool:
        """Whether the cells as a whole are of whole multiples."""
        return int(self.tells.sum()) >= FEWEST and float(np.mean(self.whole[self.tells])) >= MOST_CELLS


def find_units(values: NDArray[np.floating], indptr: NDArray[np.integer]) -> Units:
    """Look at cells that all have a value.

    Parameters
    ----------
    values
        (nnz,) above 0.
    indptr
        (n + 1,) where each cell's values begin; every cell has one or more.
    """
    lengths = np.diff(indptr)
    unit = np.minimum.reduceat(values, indptr[:-1]).astype(np.float64)
    multiples = values / np.repeat(unit, lengths)
    tells = (multiples > TELLING[0]) & (multiples < TELLING[1])
    whole = tells & (np.abs(multiples - np.rint(multiples)) < NEAR)
    n_tell, n_whole = (np.add.reduceat(flags, indptr[:-1], dtype=np.int64) for flags in (tells, whole))
    return Units(unit, n_tell >= FEWEST, n_whole >= MOST_VALUES * n_tell)
