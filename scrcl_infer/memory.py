"""An AnnData in memory, a view of one, or one backed by a file, behind the protocol of `scrcl_infer.source`.

Only attributes of the object are used, so that anndata itself is never imported here. The object is not changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.errors import InputError
from scrcl_infer.frames import no_such_key
from scrcl_infer.source import Encoding, Part
from scrcl_infer.stored import PART_BYTES, PART_ENTRIES

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

BACKED_ROWS = 4096
"""Rows read at a time from a backed AnnData."""


class Memory:
    """An AnnData as a source.

    Parameters
    ----------
    adata
        Has `obs`, `var`, `X`, `layers`, `raw`, `obsm` as `anndata.AnnData` has.

    Raises
    ------
    InputError
        It has not.
    """

    def __init__(self, adata: Any) -> None:  # noqa: ANN401 - duck typing keeps anndata out of this module
        if not all(hasattr(adata, name) for name in ("obs_names", "var_names", "layers", "obsm")):
            kind = f"{type(adata).__module__}.{type(adata).__name__}"
            msg = f"Got {kind}, expected the path of an .h5ad file or an AnnData."
            raise InputError(msg)
        self.path: Path | None = None
        self.n_cells = int(adata.n_obs)
        self.n_genes = int(adata.n_vars)
        self._adata = adata
        self._handles: dict[str, MemoryMatrix] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget converted copies; the AnnData stays as it is."""
        self._handles.clear()

    def obs_names(self) -> NDArray[np.object_]:
        """Return the cells' names, (n_cells,) str."""
        return _texts(self._adata.obs_names)

    def obs_keys(self) -> tuple[str, ...]:
        """Return the names of the columns of `obs`."""
        return tuple(str(key) for key in self._adata.obs.columns)

    def obs_column(self, key: str) -> NDArray[Any]:
        """Return a column of `obs`, (n_cells,): str objects (missing: None) or numbers (missing: NaN).

        Raises
        ------
        InputError
            There is no such column; the text names those there are.
        """
        return _column(self._adata.obs, key, "obs")

    def var_names(self, where: str = "X") -> NDArray[np.object_]:
        """Return the names of a matrix's columns, (n_genes,) str."""
        return _texts(self._var(where).index)

    def var_keys(self, where: str = "X") -> tuple[str, ...]:
        """Return the names of the columns of the `var` that belongs to a matrix."""
        return tuple(str(key) for key in self._var(where).columns)

    def var_column(self, key: str, where: str = "X") -> NDArray[Any]:
        """Return a column of `var`, (n_genes,); errors as for `obs_column`."""
        return _column(self._var(where), key, "var")

    def obsm_keys(self) -> tuple[str, ...]:
        """Return the names of the arrays in `obsm`."""
        return tuple(self._adata.obsm.keys())

    def obsm(self, key: str) -> NDArray[Any]:
        """Return an array of `obsm`, (n_cells, k); errors as for `obs_column`."""
        if key not in self._adata.obsm:
            place = "obsm"
            raise no_such_key(place, key, self.obsm_keys())
        values = self._adata.obsm[key]
        values = values.toarray() if hasattr(values, "toarray") else np.asarray(values)
        array: NDArray[Any] = values.reshape(len(values), -1)
        return array

    def layers(self) -> tuple[str, ...]:
        """Return the names of the layers."""
        return tuple(self._adata.layers.keys())

    def matrices(self) -> tuple[str, ...]:
        """Return every matrix there is: 'X', 'layers/NAME', 'raw/X'."""
        has_x = bool(getattr(self._adata, "isbacked", False)) or self._adata.X is not None
        raw = getattr(self._adata, "raw", None)
        layers = (f"layers/{name}" for name in self.layers())
        return (*(["X"] if has_x else []), *layers, *(["raw/X"] if raw is not None else []))

    def matrix(self, where: str) -> MemoryMatrix:
        """Return one matrix.

        Raises
        ------
        InputError
            There is no such matrix, or it is of a kind that is not read.
        """
        if where not in self._handles:
            if where not in self.matrices():
                place = "The AnnData"
                raise no_such_key(place, where, self.matrices())
            self._handles[where] = MemoryMatrix(self._adata, where, (self.n_cells, len(self._var(where).index)))
        return self._handles[where]

    def _var(self, where: str) -> Any:  # noqa: ANN401 - a pandas.DataFrame
        return self._adata.raw.var if where == "raw/X" else self._adata.var


class MemoryMatrix:
    """One matrix of an AnnData.

    A backed `X` is sliced as it is read; anything else is looked at where it lies, CSC converted once.
    """

    def __init__(self, adata: Any, where: str, shape: tuple[int, int]) -> None:  # noqa: ANN401 - see Memory
        self.where = where
        self.shape = shape
        self._adata = adata
        # anndata refuses a view of a view of a backed file: such a subset has to be loaded.
        self._backed = bool(getattr(adata, "isbacked", False)) and not adata.is_view and where == "X"
        self._whole: Any = None  # CSR or a numpy array, where it lies in memory
        sample = _whole(adata[:0], where) if self._backed else _whole(adata, where)
        self.encoding: Encoding = sample.format if _is_sparse(sample) and sample.format in ("csr", "csc") else "dense"
        self.dtype: np.dtype[Any] = sample.dtype
        if not self._backed:
            self._whole = _sliceable(sample, where)
            if tuple(self._whole.shape) != shape:
                msg = f"{where} is {self._whole.shape}, but obs and var name {shape[0]} cells and {shape[1]} genes."
                raise InputError(msg)

    def read_rows(self, start: int, stop: int) -> csr_matrix:
        """Return rows `start:stop`."""
        from scipy.sparse import csr_matrix

        return csr_matrix(self._rows(start, stop))

    def iter_parts(self, *, threads: int) -> Iterator[Part]:
        """Yield runs of rows."""
        for start in range(0, self.shape[0], size := self._part_rows()):
            stop = min(start + size, self.shape[0])
            yield Part(start, self._rows(start, stop))

    def _part_rows(self) -> int:
        n_cells, n_genes = self.shape
        if self._whole is not None and _is_sparse(self._whole):
            return max(1, n_cells * PART_ENTRIES // max(1, int(self._whole.nnz)))
        size = max(1, PART_BYTES // max(1, 4 * n_genes))
        return min(size, BACKED_ROWS) if self._whole is not None or self.encoding == "dense" else BACKED_ROWS

    def _rows(self, start: int, stop: int) -> csr_matrix | NDArray[np.float32]:
        """Return a float32 copy of some rows."""
        if self._whole is None:
            rows = _sliceable(_whole(self._adata[start:stop], self.where), self.where)
        else:
            rows = self._whole[start:stop]
        with np.errstate(over="ignore"):
            if not _is_sparse(rows):
                return np.array(rows, dtype=np.float32, order="C")
            from scipy.sparse import csr_matrix

            data, indices = rows.data.astype(np.float32), rows.indices.astype(np.int32, copy=False)
            return csr_matrix((data, indices, rows.indptr.astype(np.int32)), shape=rows.shape, copy=False)


def _whole(adata: Any, where: str) -> Any:  # noqa: ANN401 - whatever the AnnData holds
    if where == "X":
        return adata.X
    return adata.raw.X if where == "raw/X" else adata.layers[where.removeprefix("layers/")]


def _is_sparse(values: Any) -> bool:  # noqa: ANN401 - whatever the AnnData holds
    return hasattr(values, "indptr") and hasattr(values, "tocsr")


def _sliceable(values: Any, where: str) -> Any:  # noqa: ANN401 - whatever the AnnData holds
    """Return CSR or a numpy array.

    Raises
    ------
    InputError
        It is an array of another kind.
    """
    if _is_sparse(values):
        return values.tocsr()
    if hasattr(values, "to_memory"):  # anndata's sparse dataset of a backed file
        return values.to_memory().tocsr()
    if isinstance(values, np.ndarray):
        return np.asarray(values)
    if type(values).__module__.startswith("h5py"):
        return values[()]
    kind = f"{type(values).__module__}.{type(values).__name__}"
    msg = (
        f"{where} is a {kind}, expected a numpy array or a scipy sparse matrix. Convert it first, e.g. with "
        "`adata.to_memory()` or `.compute()`."
    )
    raise InputError(msg)


def _texts(index: Any) -> NDArray[np.object_]:  # noqa: ANN401 - a pandas.Index
    return np.array([str(value) for value in index], dtype=object)


def _column(frame: Any, key: str, place: str) -> NDArray[Any]:  # noqa: ANN401 - a pandas.DataFrame
    if key not in frame.columns:
        raise no_such_key(place, key, tuple(str(name) for name in frame.columns))
    column = frame[key]
    if column.dtype.kind in "biufc":
        is_nullable = hasattr(column.dtype, "numpy_dtype") and bool(column.isna().any())
        numbers: NDArray[Any] = column.to_numpy(np.float64, na_value=np.nan) if is_nullable else np.asarray(column)
        return numbers
    values = column.astype(object).to_numpy()
    missing = np.asarray(column.isna())
    if all(isinstance(value, int | float | np.number) for value in values[~missing].tolist()) and (~missing).any():
        return np.where(missing, np.nan, np.where(missing, 0, values)).astype(np.float64)
    return np.array([None if gone else str(value) for value, gone in zip(values, missing, strict=True)], dtype=object)
