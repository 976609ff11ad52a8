"""The nearest cells of each cell in the embedding: exact in small files, by lists of close cells in large ones.

A sum of floating-point products depends on the order of its terms, and so on the number of threads, the processor and
the size of blocks. Here embeddings are rounded to whole numbers small enough that every product and every partial sum
is exact in double precision: the same cells have the same neighbours everywhere. Rounding moves a cosine by 0.00002.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SCALE = 32_000
"""A unit row becomes whole numbers of this length, two bytes each. By Cauchy and Schwarz no partial sum of a product of
two rows is far above its square, and float64 holds every whole number up to 2^53."""
EXACT_CELLS = 20_000
"""Files of up to so many cells are searched exhaustively."""
SEARCHED = 12
"""Cells that are looked at for each cell of a larger file, in units of the square root of the number of cells."""
ROUNDS = 2
"""Times that the middles of the lists are moved to the mean of their cells."""
LONGEST = 4
"""Lists longer than so many times the mean are cut: many cells in one place must not make the search quadratic."""
ENTRIES = 1 << 21
"""Similarities held at a time; the answer does not depend on it."""
GROUP = 32
"""Cells whose nearest is looked for first, see `_lower_bound`; the answer does not depend on it."""


def round_rows(embedding: NDArray[np.floating]) -> NDArray[np.int16]:
    """Return unit rows (n, D) as whole numbers of length `SCALE`, (n, D)."""
    rounded: NDArray[np.int16] = np.rint(np.asarray(embedding, dtype=np.float32) * np.float32(SCALE)).astype(np.int16)
    return rounded


def find_neighbors(rows: NDArray[np.int16], *, n_neighbors: int, exact_cells: int = EXACT_CELLS) -> NDArray[np.int32]:
    """Return the nearest other cells of every cell by cosine.

    Up to `exact_cells` cells every pair is compared. In a larger file each cell is put into the list of the nearest of
    about sqrt(n) middles, which two rounds of k-means place, starting from every sqrt(n)-th cell; the cells of a list
    are compared with those of the nearest lists, its own first, until these hold `SEARCHED` sqrt(n) cells.

    Parameters
    ----------
    rows
        (n, D) as `round_rows` gives them.
    n_neighbors
        Neighbours of each cell, bounded by n - 1.
    exact_cells
        See above.

    Returns
    -------
    NDArray
        (n, n_neighbors) int32, nearest first, of equally near ones the earlier in the file.
    """
    n_cells = len(rows)
    n_neighbors = max(0, min(n_neighbors, n_cells - 1))
    found = np.empty((n_cells, n_neighbors), dtype=np.int32)
    if not n_neighbors:
        return found
    if n_cells <= exact_cells:
        everything = np.arange(n_cells)
        _search(rows, everything, everything, found)
        return found
    order, starts, middles = _make_lists(rows)
    sizes = np.diff(starts)
    wanted = min(n_cells, max(SEARCHED * round(n_cells**0.5), n_neighbors + 1))
    for number in range(len(sizes)):
        near = middles @ middles[number]
        near[number] = np.inf
        lists = np.argsort(-near, kind="stable")
        lists = lists[: int(np.searchsorted(np.cumsum(sizes[lists]), wanted)) + 1]
        candidates = np.sort(np.concatenate([order[starts[i] : starts[i + 1]] for i in lists]))
        _search(rows, order[starts[number] : starts[number + 1]], candidates, found)
    return found


def _search(
    rows: NDArray[np.int16], cells: NDArray[np.int64], candidates: NDArray[np.int64], found: NDArray[np.int32]
) -> None:
    """Write the nearest candidates of cells, all of which are among the candidates themselves, into `found`."""
    n_neighbors = found.shape[1]
    among = rows[candidates].astype(np.float64)
    step = max(1, ENTRIES // len(candidates))
    for start in range(0, len(cells), step):
        some = cells[start : start + step]
        similarity = rows[some].astype(np.float64) @ among.T
        similarity[np.arange(len(some)), np.searchsorted(candidates, some)] = -np.inf
        # Few pass the bound, so that next to nothing is left to sort.
        passed = np.flatnonzero(similarity >= _lower_bound(similarity, n_neighbors)[:, None])
        row, column = np.divmod(passed, len(candidates))
        order = np.lexsort((column, -similarity.ravel()[passed], row))
        first = np.searchsorted(row, np.arange(len(some)))
        found[some] = candidates[column[order[first[:, None] + np.arange(n_neighbors)]]]


def _lower_bound(similarity: NDArray[np.float64], n_neighbors: int) -> NDArray[np.float64]:
    """Return a number for each row that at least `n_neighbors` of its entries reach, (m,).

    The best entries of so many groups reach the lowest of these: no need to sort the entries themselves.
    """
    n_rows, n_columns = similarity.shape
    n_groups = n_columns // GROUP
    if n_groups < n_neighbors:
        bound: NDArray[np.float64] = np.partition(similarity, -n_neighbors, axis=1)[:, -n_neighbors]
        return bound
    best = similarity[:, : n_groups * GROUP].reshape(n_rows, GROUP, n_groups).max(axis=1)
    bound = np.partition(best, -n_neighbors, axis=1)[:, -n_neighbors]
    return bound


def _make_lists(rows: NDArray[np.int16]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return cells in the order of their lists, where each list starts (and the end), and the lists' middles."""
    n_cells = len(rows)
    n_lists = round(n_cells**0.5)
    middles = rows[np.arange(n_lists) * n_cells // n_lists].astype(np.float64)
    of_cell = _nearest_middle(rows, middles)
    for _ in range(ROUNDS):
        middles = _means(rows, of_cell, middles)
        of_cell = _nearest_middle(rows, middles)
    order = np.argsort(of_cell, kind="stable")
    sizes = np.bincount(of_cell, minlength=n_lists)
    longest = LONGEST * -(-n_cells // n_lists)
    pieces = -(-sizes // longest)  # an empty list has none
    first = np.repeat(np.concatenate([[0], np.cumsum(sizes)[:-1]]), pieces)
    within = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    starts = np.append(first + within * longest, n_cells)
    return order, starts.astype(np.int64), np.repeat(middles, pieces, axis=0)


def _nearest_middle(rows: NDArray[np.int16], middles: NDArray[np.float64]) -> NDArray[np.int64]:
    step = max(1, ENTRIES // len(middles))
    parts = [
        (rows[start : start + step].astype(np.float64) @ middles.T).argmax(axis=1)
        for start in range(0, len(rows), step)
    ]
    return np.concatenate(parts)


def _means(rows: NDArray[np.int16], of_cell: NDArray[np.int64], middles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean direction of each list's cells as whole numbers; a list without cells stays where it was."""
    sums = np.zeros(middles.shape, dtype=np.int64)
    order = np.argsort(of_cell, kind="stable")
    filled, starts = np.unique(of_cell[order], return_index=True)
    for column in range(rows.shape[1]):
        sums[filled, column] = np.add.reduceat(rows[order, column].astype(np.int64), starts)
    # Whole numbers up to here; the square root and the division are exact to the last bit on every machine.
    length = np.sqrt((sums**2).sum(axis=1))[:, None]
    moved = np.rint(np.divide(sums * SCALE, length, out=np.zeros(sums.shape), where=length > 0))
    return np.where(length > 0, moved, middles)
