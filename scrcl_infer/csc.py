"""A CSC matrix (stored by gene) read by cell, in constant memory.

A cell's values lie scattered over the whole file. One pass over the columns sorts the entries of each batch by bucket,
a bucket being a run of cells, and appends them to a temporary file; a bucket is then gathered from its pieces and put
in order. Each entry is inflated once, written once and read once; the temporary file takes 10 bytes per stored value
(in TMPDIR) and is gone when the source is closed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from scrcl_infer.chunks import Pool, RowStream
from scrcl_infer.errors import InputError
from scrcl_infer.source import Encoding, Part
from scrcl_infer.stored import PART_ENTRIES, SparseGroup, check_indices, read_indptr

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

BATCH_ENTRIES = 1 << 21
"""Stored values sorted at a time."""
BUCKET_ROWS = 1 << 16
"""Most rows of a bucket: a row within it is two bytes."""
_ENTRY_BYTES = 10


class CscMatrix(SparseGroup):
    """A CSC group; see the module's text for how its rows are read. Parameters as for `SparseGroup`."""

    encoding: Encoding = "csc"

    def __init__(self, group: h5py.Group, where: str, *, fd: int | None) -> None:
        super().__init__(group, where, fd=fd)
        self._spilled: _Spilled | None = None

    def read_rows(self, start: int, stop: int) -> csr_matrix:
        """Return rows `start:stop`; the first call sorts the whole matrix."""
        from scipy.sparse import csr_matrix, vstack

        spilled = self._spill(threads=1)
        size = spilled.bucket_rows
        pieces = []
        for bucket in range(start // size, -(-stop // size)):
            rows = spilled.read(bucket, min(size, self.shape[0] - bucket * size), self.shape[1])
            pieces.append(rows[max(0, start - bucket * size) : stop - bucket * size])
        return vstack(pieces, format="csr") if pieces else csr_matrix(np.zeros((0, self.shape[1]), np.float32))

    def iter_parts(self, *, threads: int) -> Iterator[Part]:
        """Yield buckets of rows."""
        spilled = self._spill(threads=threads)
        for bucket, start in enumerate(range(0, self.shape[0], spilled.bucket_rows)):
            n_rows = min(spilled.bucket_rows, self.shape[0] - start)
            yield Part(start, spilled.read(bucket, n_rows, self.shape[1]))

    def close(self) -> None:
        """Remove the temporary file."""
        if self._spilled is not None:
            self._spilled.file.close()
            self._spilled = None

    def _spill(self, *, threads: int) -> _Spilled:
        """Sort the matrix by bucket, once."""
        if self._spilled is None:
            n_cells, n_genes = self.shape
            indptr = read_indptr(self._group, n_genes)
            n_stored = int(indptr[-1])
            bucket_rows = int(np.clip(n_cells * PART_ENTRIES // max(1, n_stored), 1, BUCKET_ROWS))
            _check_space(n_stored * _ENTRY_BYTES, self.where)
            spilled = _Spilled(tempfile.TemporaryFile(prefix="scrcl-"), bucket_rows, -(-n_cells // bucket_rows))  # noqa: SIM115
            try:
                self._fill(spilled, indptr, threads)
            except BaseException:
                spilled.file.close()
                raise
            self._spilled = spilled
        return self._spilled

    def _fill(self, spilled: _Spilled, indptr: NDArray[np.int64], threads: int) -> None:
        values, indices = self._open_readers()
        with Pool(threads) as pool:
            streams = RowStream(indices, pool), RowStream(values, pool)
            for start in range(0, int(indptr[-1]), BATCH_ENTRIES):
                stop = min(start + BATCH_ENTRIES, int(indptr[-1]))
                rows, data = (stream.take(stop - start) for stream in streams)
                check_indices(rows, self.shape[0], self.where)
                # The column of an entry is the last one that starts at or before it.
                first = int(np.searchsorted(indptr, start, side="right")) - 1
                last = int(np.searchsorted(indptr, stop, side="left"))
                edges = np.clip(indptr[first : last + 1], start, stop)
                lengths = edges[1:] - edges[:-1]
                spilled.append(rows, np.repeat(np.arange(first, last, dtype=np.int32), lengths), data)


class _Spilled:
    """Entries in a temporary file: batch after batch, and within a batch bucket after bucket."""

    def __init__(self, file: IO[bytes], bucket_rows: int, n_buckets: int) -> None:
        self.file = file
        self.bucket_rows = bucket_rows
        self._n_buckets = n_buckets
        self._batches: list[tuple[int, NDArray[np.int64]]] = []
        """Place of each batch in the file and where its buckets start, in entries."""
        self._end = 0

    def append(self, rows: NDArray[np.int32], columns: NDArray[np.int32], data: NDArray[np.float32]) -> None:
        """Write a batch; columns must not decrease from batch to batch."""
        buckets = rows // self.bucket_rows
        # Radix sort, which numpy has for 16 bits only, takes a tenth of the time of the general one.
        narrow = buckets.astype(np.uint16) if self._n_buckets <= 1 << 16 else buckets
        order = np.argsort(narrow, kind="stable")
        starts = np.concatenate([[0], np.cumsum(np.bincount(buckets, minlength=self._n_buckets))]).astype(np.int64)
        self._batches.append((self._end, starts))
        within = (rows - buckets * self.bucket_rows).astype(np.uint16)
        for values in (within, columns, data):
            self._write(values[order].tobytes())

    def read(self, bucket: int, n_rows: int, n_genes: int) -> csr_matrix:
        """Return the rows of a bucket, (n_rows, n_genes), columns in order."""
        from scipy.sparse import csr_matrix

        pieces: list[list[NDArray[Any]]] = [[], [], []]
        for place, starts in self._batches:
            low, high = int(starts[bucket]), int(starts[bucket + 1])
            if low == high:
                continue
            at = place
            for kept, kind in zip(pieces, (np.uint16, np.int32, np.float32), strict=True):
                size = np.dtype(kind).itemsize
                raw = os.pread(self.file.fileno(), (high - low) * size, at + low * size)
                kept.append(np.frombuffer(raw, dtype=kind))
                at += int(starts[-1]) * size
        if not pieces[0]:
            nothing = np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(n_rows + 1, np.int32)
            return csr_matrix(nothing, shape=(n_rows, n_genes))
        rows, columns, data = (np.concatenate(kept) for kept in pieces)
        order = np.argsort(rows, kind="stable")
        indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=n_rows))]).astype(np.int32)
        return csr_matrix((data[order], columns[order], indptr), shape=(n_rows, n_genes), copy=False)

    def _write(self, raw: bytes) -> None:
        view = memoryview(raw)
        while view:
            try:
                n_written = os.write(self.file.fileno(), view)
            except OSError as error:
                raise InputError(_no_space(str(error))) from error
            self._end += n_written
            view = view[n_written:]


def _check_space(n_bytes: int, where: str) -> None:
    """Refuse early where the temporary file cannot fit."""
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if n_bytes > free:
        raise InputError(
            _no_space(f"{where} is stored by gene and needs {n_bytes / 1e9:.1f} GB, {free / 1e9:.1f} are free")
        )


def _no_space(why: str) -> str:
    return (
        f"The temporary folder {tempfile.gettempdir()} is full ({why}). Set TMPDIR to a folder with room, or store the "
        "matrix by cell: `adata.X = adata.X.tocsr()` before writing it."
    )
