"""Matrices of an `.h5ad` file: CSR and dense, read in parts of bounded size. CSC is in `scrcl_infer.csc`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from scrcl_infer.chunks import ChunkReader, Pool, RowStream
from scrcl_infer.errors import InputError
from scrcl_infer.frames import text
from scrcl_infer.source import Encoding, Part

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

PART_ENTRIES = 1 << 20
"""Stored values of one part: about 12 MB while it is being read."""
PART_BYTES = 16 << 20
"""Bytes of one dense part, unless the file's chunks are taller."""


def sparse_format(item: h5py.Group | h5py.Dataset) -> Encoding:
    """Return how a matrix is stored.

    Raises
    ------
    InputError
        It is of a kind that is not read.
    """
    if isinstance(item, h5py.Dataset):
        return "dense"
    kind = text(item.attrs.get("encoding-type", item.attrs.get("h5sparse_format", "")))
    for known in ("csr", "csc"):
        if kind.startswith(known) and {"data", "indices", "indptr"} <= set(item):
            return known
    msg = f"{item.name} is stored as {kind or 'an unknown type'!r}, expected a CSR, CSC or dense matrix."
    raise InputError(msg)


def sparse_shape(group: h5py.Group) -> tuple[int, int]:
    """Return (n_cells, n_genes) of a sparse group, in the old or the new layout."""
    shape = group.attrs.get("shape", group.attrs.get("h5sparse_shape", group.get("shape")))
    if shape is None:
        msg = f"{group.name} has no shape. Write the file again with `adata.write_h5ad(path)`."
        raise InputError(msg)
    n_cells, n_genes = (int(n) for n in shape[:2])
    return n_cells, n_genes


def read_indptr(group: h5py.Group, n_major: int) -> NDArray[np.int64]:
    """Return the (n_major + 1,) starts of a sparse matrix, checked.

    Raises
    ------
    InputError
        They do not fit the shape or the stored values.
    """
    indptr = group["indptr"][()].astype(np.int64, copy=False)
    n_stored = min(group["data"].shape[0], group["indices"].shape[0])
    if len(indptr) != n_major + 1 or indptr[0] != 0 or indptr[-1] > n_stored or (np.diff(indptr) < 0).any():
        msg = (
            f"{group.name} of {group.file.filename} is damaged: its indptr ({len(indptr)} entries) does not fit "
            f"{n_major} rows and {n_stored} stored values. Copy or write the file again."
        )
        raise InputError(msg)
    checked: NDArray[np.int64] = indptr
    return checked


def check_indices(indices: NDArray[np.int32], bound: int, name: str) -> None:
    """Refuse indices outside `[0, bound)`."""
    if len(indices) and (indices.min() < 0 or indices.max() >= bound):
        msg = f"{name} is damaged: it has indices outside 0..{bound - 1}. Copy or write the file again."
        raise InputError(msg)


class SparseGroup:
    """A group with `data`, `indices` and `indptr`; the base of how CSR and CSC are read.

    Parameters
    ----------
    group
        As `sparse_format` found it.
    where
        Its name for users.
    fd
        Descriptor of the file; None reads through h5py.
    """

    def __init__(self, group: h5py.Group, where: str, *, fd: int | None) -> None:
        self.where = where
        self.shape = sparse_shape(group)
        self.dtype: np.dtype[Any] = group["data"].dtype
        self._group = group
        self._fd = fd

    def _open_readers(self) -> tuple[ChunkReader, ChunkReader]:
        """Return readers of the values and of the indices."""
        values = ChunkReader(self._group["data"], fd=self._fd, dtype=np.float32)
        return values, ChunkReader(self._group["indices"], fd=self._fd, dtype=np.int32)


class CsrMatrix(SparseGroup):
    """Rows are runs of `data` and `indices`; only `indptr` is held. Parameters as for `SparseGroup`."""

    encoding: Encoding = "csr"

    def __init__(self, group: h5py.Group, where: str, *, fd: int | None) -> None:
        super().__init__(group, where, fd=fd)
        self._indptr: NDArray[np.int64] | None = None
        self._opened: tuple[ChunkReader, ChunkReader] | None = None

    def read_rows(self, start: int, stop: int) -> csr_matrix:
        """Return rows `start:stop`."""
        indptr = self._starts()
        low, high = int(indptr[start]), int(indptr[stop])
        readers = self._readers()
        return self._build(indptr[start : stop + 1], readers[0].read(low, high), readers[1].read(low, high))

    def iter_parts(self, *, threads: int) -> Iterator[Part]:
        """Yield rows in runs of about `PART_ENTRIES` stored values."""
        indptr, n_cells = self._starts(), self.shape[0]
        with Pool(threads) as pool:
            streams = [RowStream(reader, pool) for reader in self._readers()]
            start = 0
            while start < n_cells:
                stop = int(np.searchsorted(indptr, indptr[start] + PART_ENTRIES, side="right")) - 1
                stop = min(n_cells, max(start + 1, stop))
                n_stored = int(indptr[stop] - indptr[start])
                data, indices = (stream.take(n_stored) for stream in streams)
                yield Part(start, self._build(indptr[start : stop + 1], data, indices))
                start = stop

    def _starts(self) -> NDArray[np.int64]:
        if self._indptr is None:
            self._indptr = read_indptr(self._group, self.shape[0])
        return self._indptr

    def _readers(self) -> tuple[ChunkReader, ChunkReader]:
        if self._opened is None:
            self._opened = self._open_readers()
        return self._opened

    def _build(self, indptr: NDArray[np.int64], data: NDArray[Any], indices: NDArray[Any]) -> csr_matrix:
        from scipy.sparse import csr_matrix

        check_indices(indices, self.shape[1], self.where)
        starts = (indptr - indptr[0]).astype(np.int32)
        return csr_matrix((data, indices, starts), shape=(len(starts) - 1, self.shape[1]), copy=False)


class DenseMatrix:
    """A 2-D dataset, read in bands of rows that follow its chunks."""

    encoding: Encoding = "dense"

    def __init__(self, dataset: h5py.Dataset, where: str, *, fd: int | None) -> None:
        if dataset.ndim != 2:
            msg = f"{where} has {dataset.ndim} dimensions, expected cells by genes."
            raise InputError(msg)
        self.where = where
        self.shape: tuple[int, int] = dataset.shape
        self.dtype: np.dtype[Any] = dataset.dtype
        self._reader = ChunkReader(dataset, fd=fd, dtype=np.float32)

    def read_rows(self, start: int, stop: int) -> csr_matrix:
        """Return rows `start:stop`."""
        from scipy.sparse import csr_matrix

        return csr_matrix(self._reader.read(start, stop))

    def iter_parts(self, *, threads: int) -> Iterator[Part]:
        """Yield bands of rows."""
        size = max(1, PART_BYTES // max(1, 4 * self.shape[1]))
        with Pool(threads) as pool:
            stream = RowStream(self._reader, pool)
            for start in range(0, self.shape[0], size):
                yield Part(start, stream.take(size))
