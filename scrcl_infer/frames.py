"""Names and columns of `obs` and `var` as anndata has stored them over the years, without pandas.

Covers data frames as groups (encoding 0.2.0, 0.1.0 and before), compound arrays (anndata < 0.7), categoricals in three
layouts, nullable arrays, and fixed-length and variable-length strings.
Layouts: https://anndata.readthedocs.io/en/stable/fileformat-prose.html
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from scrcl_infer.errors import InputError

_LEGACY_CATEGORIES = "__categories"


def text(value: object) -> str:
    """Return a stored name or attribute as str."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def column_names(frame: h5py.Group | h5py.Dataset) -> tuple[str, ...]:
    """Return the names of a frame's columns, index left out, in their order."""
    index = index_name(frame)
    if isinstance(frame, h5py.Dataset):
        return tuple(name for name in frame.dtype.names or () if name != index)
    order = [text(name) for name in np.atleast_1d(frame.attrs.get("column-order", []))]
    if "column-order" not in frame.attrs:
        order = [name for name in frame if name != _LEGACY_CATEGORIES]
    return tuple(name for name in order if name in frame and name != index)


def index_name(frame: h5py.Group | h5py.Dataset) -> str:
    """Return the name of the column that holds the row names."""
    if isinstance(frame, h5py.Dataset):
        names = frame.dtype.names or ("",)
        return next((name for name in ("index", "_index") if name in names), names[0])
    named = text(frame.attrs.get("_index", "_index"))
    return named if named in frame else next((name for name in ("_index", "index") if name in frame), named)


def read_index(frame: h5py.Group | h5py.Dataset) -> NDArray[np.object_]:
    """Return the row names as str, (n,).

    Raises
    ------
    InputError
        The frame has no index.
    """
    name = index_name(frame)
    if isinstance(frame, h5py.Group) and name not in frame:
        msg = f"{frame.name} has no index {name!r}. Write the file again with `adata.write_h5ad(path)`."
        raise InputError(msg)
    values = read_column(frame, name)
    return np.array([text(value) for value in values.tolist()], dtype=object)


def read_column(frame: h5py.Group | h5py.Dataset, key: str) -> NDArray[Any]:
    """Return one column, (n,): str objects (None where missing) or numbers (NaN where missing).

    Raises
    ------
    InputError
        There is no such column; the text names those there are.
    """
    if isinstance(frame, h5py.Dataset):
        if key not in (frame.dtype.names or ()):
            raise no_such_key(str(frame.name), key, column_names(frame))
        return _legacy_categorical(frame, key, _plain(frame[key]))
    if key not in frame:
        raise no_such_key(str(frame.name), key, column_names(frame))
    item = frame[key]
    if isinstance(item, h5py.Group):
        return _read_encoded(item)
    values = _plain(item[()])
    if "categories" in item.attrs:  # encoding 0.1.0 points at its categories
        return _take(_plain(frame.file[item.attrs["categories"]][()]), values)
    return values


def no_such_key(where: str, key: str, there: tuple[str, ...]) -> InputError:
    """Return the error for a name that is not there, with those that are."""
    listed = ", ".join(there[:40]) + (f" and {len(there) - 40} more" if len(there) > 40 else "")
    return InputError(f"{where.strip('/')} has no {key!r}. It has: {listed or 'nothing'}.")


def read_array(item: h5py.Group | h5py.Dataset) -> NDArray[Any]:
    """Return an array of `obsm`, (n, k): dense, sparse, or a frame of numeric columns."""
    if isinstance(item, h5py.Dataset):
        values: NDArray[Any] = item[()]
        if values.dtype.names:
            values = np.stack([values[name] for name in values.dtype.names], axis=1)
        return values.reshape(len(values), -1)
    if {"data", "indices", "indptr"} <= set(item):
        from scipy.sparse import csc_matrix, csr_matrix

        n_rows, n_columns = (int(n) for n in item.attrs.get("shape", item.attrs.get("h5sparse_shape")))
        kind = text(item.attrs.get("encoding-type", item.attrs.get("h5sparse_format", "csr")))
        build = csc_matrix if kind.startswith("csc") else csr_matrix
        stored = item["data"][()], item["indices"][()], item["indptr"][()]
        dense: NDArray[Any] = build(stored, shape=(n_rows, n_columns)).toarray()
        return dense
    columns = [read_column(item, name) for name in column_names(item)]
    if not columns or any(column.dtype == object for column in columns):
        msg = f"{item.name} is not an array of numbers."
        raise InputError(msg)
    return np.stack(columns, axis=1)


def _read_encoded(item: h5py.Group) -> NDArray[Any]:
    """Read a categorical or a nullable array."""
    if "codes" in item and "categories" in item:
        stored = item["categories"]
        categories = _read_encoded(stored) if isinstance(stored, h5py.Group) else _plain(stored[()])
        return _take(categories, item["codes"][()])
    if "values" in item:
        values = _plain(item["values"][()])
        mask = item["mask"][()].astype(bool) if "mask" in item else np.zeros(len(values), dtype=bool)
        if not mask.any():
            return values
        values = values.astype(object if values.dtype == object else np.float64)
        values[mask] = None if values.dtype == object else np.nan
        return values
    kind = text(item.attrs.get("encoding-type", "an unknown type"))
    msg = (
        f"{item.name} is stored as {kind!r}, which this version does not read. "
        "Convert the column to text or numbers and write the file again."
    )
    raise InputError(msg)


def _legacy_categorical(frame: h5py.Dataset, key: str, values: NDArray[Any]) -> NDArray[Any]:
    """Look codes up in `uns/KEY_categories`, where anndata < 0.7 kept the names."""
    uns = frame.file.get("uns")
    name = f"{key}_categories"
    if values.dtype.kind not in "iu" or not isinstance(uns, h5py.Group) or name not in uns:
        return values
    return _take(_plain(np.atleast_1d(uns[name][()])), values)


def _take(categories: NDArray[Any], codes: NDArray[Any]) -> NDArray[Any]:
    """Return the categories of the codes; -1 is missing."""
    missing = codes < 0
    if categories.dtype != object and not missing.any():
        known: NDArray[Any] = categories[codes]
        return known
    kind = object if categories.dtype == object else np.float64
    # One more entry to point at makes -1 a valid index even where there are no categories at all.
    padded = np.append(categories.astype(kind), np.array([None if kind is object else np.nan], dtype=kind))
    return padded[np.where(missing, len(categories), codes)]


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Turn stored strings into str objects; leave numbers alone."""
    if values.dtype.kind not in "OSU":
        return values
    return np.array([text(value) for value in values.ravel().tolist()], dtype=object).reshape(values.shape)
