"""Opening an input: an `.h5ad` file through h5py alone, or an AnnData in memory.

`H5ad` reads names and columns when asked and never holds a matrix. Everything else of reading is one file each:
`source` (the protocol), `chunks` (fast raw reading), `stored` and `csc` (matrices), `frames` (obs and var), `memory`
(AnnData), `blocks` (rows for the encoder). This module is where the others are imported from.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from scrcl_infer import frames
from scrcl_infer.blocks import RowBlock, iter_blocks, iter_csr_blocks
from scrcl_infer.csc import CscMatrix
from scrcl_infer.errors import InputError
from scrcl_infer.source import Encoding, MatrixHandle, Source
from scrcl_infer.stored import CsrMatrix, DenseMatrix, sparse_format

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["H5ad", "MatrixHandle", "RowBlock", "Source", "iter_blocks", "iter_csr_blocks", "open_source"]


def open_source(data: Path | str | AnnData) -> Source:
    """Open a file or take an AnnData as it is.

    Parameters
    ----------
    data
        Path of an `.h5ad` file, or an AnnData (also a view, or backed by a file). It is never changed.

    Returns
    -------
    A context manager; close it when done.

    Raises
    ------
    InputError
        There is no such file, it is no `.h5ad`, or the object is no AnnData.
    """
    if isinstance(data, str | os.PathLike):
        return H5ad(Path(data))
    from scrcl_infer.memory import Memory

    return Memory(data)


class H5ad:
    """An `.h5ad` file, open for reading.

    Parameters
    ----------
    path
        The file. Layouts of anndata 0.5 and later are understood.

    Raises
    ------
    InputError
        The file is missing, empty, damaged, or of another kind; the text says which.
    """

    def __init__(self, path: Path) -> None:
        self.path: Path | None = path
        self._file = _open_hdf5(path)
        self._handles: dict[str, MatrixHandle] = {}
        self._fd: int | None = None
        try:
            for name in ("obs", "var"):
                if name not in self._file:
                    raise InputError(_not_h5ad(path, self._file))
            self.n_cells = _frame_length(self._file["obs"])
            self.n_genes = _frame_length(self._file["var"])
            self._fd = os.open(path, os.O_RDONLY)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and remove what was spilled to disk."""
        for handle in self._handles.values():
            if hasattr(handle, "close"):
                handle.close()
        self._handles.clear()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self._file.close()

    def obs_names(self) -> NDArray[np.object_]:
        """Return the cells' names, (n_cells,) str."""
        return frames.read_index(self._file["obs"])

    def obs_keys(self) -> tuple[str, ...]:
        """Return the names of the columns of `obs`."""
        return frames.column_names(self._file["obs"])

    def obs_column(self, key: str) -> NDArray[Any]:
        """Return a column of `obs`, (n_cells,): str objects (missing: None) or numbers (missing: NaN).

        Raises
        ------
        InputError
            There is no such column; the text names those there are.
        """
        return frames.read_column(self._file["obs"], key)

    def var_names(self, where: str = "X") -> NDArray[np.object_]:
        """Return the names of a matrix's columns, (n_genes,) str."""
        return frames.read_index(self._var(where))

    def var_keys(self, where: str = "X") -> tuple[str, ...]:
        """Return the names of the columns of the `var` that belongs to a matrix."""
        return frames.column_names(self._var(where))

    def var_column(self, key: str, where: str = "X") -> NDArray[Any]:
        """Return a column of `var`, (n_genes,); errors as for `obs_column`."""
        return frames.read_column(self._var(where), key)

    def obsm_keys(self) -> tuple[str, ...]:
        """Return the names of the arrays in `obsm`."""
        obsm = self._file.get("obsm")
        if isinstance(obsm, h5py.Dataset):
            return tuple(obsm.dtype.names or ())
        return tuple(obsm) if obsm is not None else ()

    def obsm(self, key: str) -> NDArray[Any]:
        """Return an array of `obsm`, (n_cells, k).

        Raises
        ------
        InputError
            There is none of that name; the text names those there are.
        """
        if key not in self.obsm_keys():
            place = "obsm"
            raise frames.no_such_key(place, key, self.obsm_keys())
        obsm = self._file["obsm"]
        if isinstance(obsm, h5py.Dataset):
            values: NDArray[Any] = obsm[key]
            return values.reshape(self.n_cells, -1)
        return frames.read_array(obsm[key])

    def layers(self) -> tuple[str, ...]:
        """Return the names of the layers."""
        return tuple(self._file["layers"]) if "layers" in self._file else ()

    def matrices(self) -> tuple[str, ...]:
        """Return every matrix there is: 'X', 'layers/NAME', 'raw/X'."""
        names = ("X", *(f"layers/{name}" for name in self.layers()), "raw/X")
        return tuple(name for name in names if self._find(name) is not None)

    def matrix(self, where: str) -> MatrixHandle:
        """Open one matrix; nothing is read yet.

        Raises
        ------
        InputError
            There is no such matrix, or it is of a kind that is not read.
        """
        if where not in self._handles:
            item = self._find(where)
            if item is None:
                raise frames.no_such_key(str(self.path), where, self.matrices())
            n_genes = _frame_length(self._var(where))
            self._handles[where] = _open_matrix(item, where, fd=self._fd, shape=(self.n_cells, n_genes))
        return self._handles[where]

    def _find(self, where: str) -> h5py.Group | h5py.Dataset | None:
        """Return a matrix's group or dataset; anndata < 0.7 wrote 'raw.X' rather than 'raw/X'."""
        if where in self._file:
            return self._file[where]
        return self._file.get("raw.X") if where == "raw/X" else None

    def _var(self, where: str) -> h5py.Group | h5py.Dataset:
        if where != "raw/X":
            return self._file["var"]
        for name in ("raw/var", "raw.var"):
            if name in self._file:
                return self._file[name]
        msg = f"{self.path} has raw counts but no raw/var to name their genes. Write the file again with anndata."
        raise InputError(msg)


def _open_hdf5(path: Path) -> h5py.File:
    if not path.exists():
        msg = f"There is no file {path}."
        raise InputError(msg)
    if path.is_dir():
        is_zarr = any(path.glob(".z*")) or (path / "zarr.json").exists()
        hint = " It looks like a zarr store: convert it with `anndata.read_zarr(path).write_h5ad(...)`."
        msg = f"{path} is a folder, expected an .h5ad file.{hint if is_zarr else ''}"
        raise InputError(msg)
    if path.stat().st_size == 0:
        msg = f"{path} is empty (0 bytes). It was probably not written to the end: copy or write it again."
        raise InputError(msg)
    try:
        # Read-only and network file systems often refuse HDF5's lock; reading does not need it.
        return h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        text = str(error)
        why = "it is cut short" if "truncated" in text else f"HDF5 says: {text}"
        if not h5py.is_hdf5(path):
            why = "it is not an HDF5 file"
        msg = f"{path} cannot be opened: {why}. Expected an .h5ad file as `adata.write_h5ad(path)` writes it."
        raise InputError(msg) from error


def _not_h5ad(path: Path, file: h5py.File) -> str:
    found = ", ".join(list(file)[:10]) or "nothing"
    hint = ""
    if "matrix" in file:
        hint = " It looks like a 10x file: convert it with `scanpy.read_10x_h5(path).write_h5ad(...)`."
    if "row_attrs" in file:
        hint = " It looks like a loom file: convert it with `anndata.read_loom(path).write_h5ad(...)`."
    if "mod" in file:
        hint = " It looks like a MuData file: write its RNA part with `mudata.read(path)['rna'].write_h5ad(...)`."
    return f"{path} is HDF5 but no .h5ad: expected obs and var, found {found}.{hint}"


def _frame_length(frame: h5py.Group | h5py.Dataset) -> int:
    """Return the number of rows of `obs` or `var` without reading them."""
    if isinstance(frame, h5py.Dataset):
        return int(frame.shape[0])
    name = frames.index_name(frame)
    if name not in frame:
        return len(frames.read_index(frame))
    index = frame[name]
    if isinstance(index, h5py.Group):
        index = index["codes"] if "codes" in index else index["values"]
    return int(index.shape[0])


def _open_matrix(
    item: h5py.Group | h5py.Dataset, where: str, *, fd: int | None, shape: tuple[int, int]
) -> MatrixHandle:
    """Open one matrix of a file.

    Parameters
    ----------
    item
        The group or dataset.
    where
        Its name for users.
    fd
        Descriptor of the file; None reads through h5py.
    shape
        (n_cells, n_genes) that `obs` and `var` ask for.

    Raises
    ------
    InputError
        It is of an unknown kind, or does not fit `obs` and `var`.
    """
    kinds: dict[Encoding, type[CsrMatrix | CscMatrix | DenseMatrix]] = {
        "csr": CsrMatrix,
        "csc": CscMatrix,
        "dense": DenseMatrix,
    }
    handle = kinds[sparse_format(item)](item, where, fd=fd)
    if tuple(handle.shape) != shape:
        found = f"{handle.shape[0]} x {handle.shape[1]}"
        msg = f"{where} is {found}, but obs and var name {shape[0]} cells and {shape[1]} genes. Write the file again."
        raise InputError(msg)
    return handle
