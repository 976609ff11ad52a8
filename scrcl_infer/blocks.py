"""Rows of a matrix as the blocks that the encoder and the trainer take.

A matrix hands out parts whose borders it chooses itself; blocks of the caller's size are cut from them. So a cell's
values are the same bytes whatever the block size and the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.errors import MatrixError
from scrcl_infer.source import Part, Source

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

LEFT_OUT = -2
"""In a column map: the column is no gene, and counts for nothing."""
NOT_USED = -1
"""In a column map: the column only counts for the library size."""


@dataclass(frozen=True)
class RowBlock:
    """A run of consecutive cells (N cells)."""

    start: int
    """Index of the first cell."""
    counts: NDArray[np.float32]
    """(N, n_columns) dense, C order."""
    library_size: NDArray[np.float32]
    """(N, 1) total over all columns but those left out."""
    inverted: bool = False
    """Whether logarithms were taken back while reading."""


def iter_blocks(
    source: Source,
    where: str,
    *,
    block_size: int,
    columns: NDArray[np.int32] | None,
    n_columns: int,
    threads: int,
    log_base: float | None = None,
) -> Iterator[RowBlock]:
    """Yield all cells in order as dense blocks of the wanted columns, in constant memory.

    Parameters
    ----------
    source
        The input.
    where
        'X', 'layers/NAME' or 'raw/X'.
    block_size
        Cells in a block; the last may have fewer.
    columns
        (n_genes,) output column of each of the matrix's columns; -1: only part of the library size; -2: left out
        altogether. Columns with the same number are summed. None keeps all.
    n_columns
        Width of the output.
    threads
        CPUs to use.
    log_base
        The matrix holds logarithms to this base of 1 and something additive: take them back before anything is summed.

    Raises
    ------
    MatrixError
        A value is negative or not a finite number; the text names its cell and gene.
    InputError
        The file is damaged.
    """
    handle = source.matrix(where)
    n_cells, n_genes = handle.shape
    if columns is None:
        columns = np.arange(n_genes, dtype=np.int32)
    fill = _Filler(source, where, columns=columns, n_columns=n_columns, log_base=log_base)
    counts, library = _empty(min(block_size, n_cells), n_columns)
    start = n_filled = 0
    for part in handle.iter_parts(threads=threads):
        at, n_rows = 0, part.rows.shape[0]
        library_part = fill.check(part)
        while at < n_rows:
            step = min(n_rows - at, len(counts) - n_filled)
            fill.fill(part, slice(at, at + step), counts[n_filled : n_filled + step])
            library[n_filled : n_filled + step, 0] = library_part[at : at + step]
            at, n_filled = at + step, n_filled + step
            if n_filled == len(counts):
                yield RowBlock(start, counts, library, inverted=log_base is not None)
                start, n_filled = start + n_filled, 0
                counts, library = _empty(min(block_size, n_cells - start), n_columns)


def iter_csr_blocks(
    source: Source, where: str, *, block_size: int, threads: int = 1, left_out: NDArray[np.bool_] | None = None
) -> Iterator[tuple[int, csr_matrix]]:
    """Yield all cells in order as `(start, rows)`, rows (N, n_genes) float32 with every column of the matrix.

    Parameters and errors are those of `iter_blocks`; columns that are `left_out` (n_genes,) may hold any values.
    """
    from scipy.sparse import csr_matrix, vstack

    handle = source.matrix(where)
    kept: list[csr_matrix] = []
    start = n_kept = 0
    for part in handle.iter_parts(threads=threads):
        _check_values(source, where, part, left_out)
        rows = csr_matrix(part.rows)
        at = 0
        while at < rows.shape[0]:
            step = min(rows.shape[0] - at, block_size - n_kept)
            kept.append(rows[at : at + step])
            at, n_kept = at + step, n_kept + step
            if n_kept == block_size:
                yield start, kept[0] if len(kept) == 1 else vstack(kept, format="csr")
                start, n_kept, kept = start + block_size, 0, []
    if kept:
        yield start, vstack(kept, format="csr")


def take_logs_back(values: NDArray[np.float32], base: float) -> None:
    """Turn logarithms to a base of 1 + x into x, in place."""
    if base != math.e:
        np.multiply(values, np.float32(math.log(base)), out=values)
    with np.errstate(over="ignore"):  # counts of antibodies beside logarithms of genes
        np.expm1(values, out=values)


class _Filler:
    """Puts rows of a part into the rows of a block."""

    def __init__(
        self, source: Source, where: str, *, columns: NDArray[np.int32], n_columns: int, log_base: float | None
    ) -> None:
        self._source, self._where, self._log_base = source, where, log_base
        self._n_columns = n_columns
        self._columns = columns
        left_out = columns == LEFT_OUT
        self._left_out = left_out if left_out.any() else None
        # Ranks: the first file column of each output column, then the second, ...: within one rank no two are summed.
        order = np.argsort(columns, kind="stable")
        order = order[columns[order] >= 0]
        wanted = columns[order]
        first = np.searchsorted(wanted, wanted)
        rank = np.arange(len(wanted)) - first
        self._ranks = [(order[rank == r], wanted[rank == r]) for r in range(int(rank.max()) + 1 if len(rank) else 0)]

    def check(self, part: Part) -> NDArray[np.float32]:
        """Check a part, take its logarithm back in place, and return the (n,) library sizes."""
        _check_values(self._source, self._where, part, self._left_out)
        rows = part.rows
        if isinstance(rows, np.ndarray):
            if self._log_base is not None:
                take_logs_back(rows, self._log_base)
            kept = rows if self._left_out is None else rows[:, ~self._left_out]
            totals: NDArray[np.float32] = kept.sum(axis=1, dtype=np.float64).astype(np.float32)
            return totals
        if self._log_base is not None:
            take_logs_back(rows.data, self._log_base)
        mapped = self._columns[rows.indices]
        data = rows.data
        if self._left_out is not None:
            data = np.where(mapped == LEFT_OUT, np.float32(0), data)
        library = _row_sums(data, rows.indptr)
        used = np.flatnonzero(mapped >= 0)
        self._packed = rows.data[used], mapped[used], np.searchsorted(used, rows.indptr).astype(np.int32)
        return library

    def fill(self, part: Part, rows: slice, out: NDArray[np.float32]) -> None:
        """Write rows of a checked part into `out`, (n, n_columns)."""
        if isinstance(part.rows, np.ndarray):
            for rank, (source, target) in enumerate(self._ranks):
                if rank == 0:
                    out[:, target] = part.rows[rows][:, source]
                else:
                    out[:, target] += part.rows[rows][:, source]
            return
        from scipy.sparse import csr_matrix

        data, mapped, indptr = self._packed
        indptr = indptr[rows.start : rows.stop + 1]
        stored = slice(int(indptr[0]), int(indptr[-1]))
        # `toarray` adds up entries of the same place, which sums duplicate genes on the way.
        packed = data[stored], mapped[stored], indptr - indptr[0]
        csr_matrix(packed, shape=out.shape, copy=False).toarray(out=out)


def _empty(n_rows: int, n_columns: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    return np.zeros((n_rows, n_columns), dtype=np.float32), np.zeros((n_rows, 1), dtype=np.float32)


def _row_sums(data: NDArray[np.float32], indptr: NDArray[np.int32]) -> NDArray[np.float32]:
    """Sum each row's run of values in double precision; empty rows give 0."""
    sums = np.zeros(len(indptr) - 1, dtype=np.float32)
    filled = np.flatnonzero(np.diff(indptr))
    if len(filled):
        sums[filled] = np.add.reduceat(data, indptr[filled], dtype=np.float64)
    return sums


def _check_values(source: Source, where: str, part: Part, left_out: NDArray[np.bool_] | None) -> None:
    """Refuse negative values, NaN and infinity in columns that are not left out, naming the first."""
    rows = part.rows
    values = rows if isinstance(rows, np.ndarray) else rows.data
    if not values.size or (values.min() >= 0 and values.max() < np.inf):
        return
    is_bad = ~((values >= 0) & (values < np.inf))
    if left_out is not None:  # antibodies are often centred
        is_bad &= ~left_out if isinstance(rows, np.ndarray) else ~left_out[rows.indices]
    if not is_bad.any():
        return
    at = int(np.flatnonzero(is_bad)[0])
    if isinstance(rows, np.ndarray):
        row, column = divmod(at, rows.shape[1])
    else:
        row, column = int(np.searchsorted(rows.indptr, at, side="right")) - 1, int(rows.indices[at])
    cell, gene = source.obs_names()[part.start + row], source.var_names(where)[column]
    msg = (
        f"{where} holds {values.ravel()[at]:g} for cell {cell!r} (row {part.start + row}) and gene {gene!r}. "
        "Expected counts: finite and not negative. Name a matrix of counts with --layer, or remove that cell."
    )
    raise MatrixError(msg)
