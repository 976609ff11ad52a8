"""Answers as a copy of the input `.h5ad` with new `obs` columns, `obsm` matrices and `uns['scrcl']`.

Written with h5py after anndata's on-disk specification (https://anndata.readthedocs.io/en/stable/fileformat-prose.html),
so that neither anndata nor pandas is imported: that would cost more time than a small file takes. Everything else in
the copy stays as it is, bit for bit.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.atomic import HiddenFile, output_errors
from scrcl_infer.columns import TextColumn
from scrcl_infer.earlier import COLUMNS_KEY
from scrcl_infer.errors import OutputError
from scrcl_infer.frames import text
from scrcl_infer.result import AssignedBlock
from scrcl_infer.room import check_layout, find_replaced
from scrcl_infer.target import SLOTS, Labels, Target, encode

if TYPE_CHECKING:
    import h5py

    from scrcl_infer.h5ad import Source

NO_RESERVING = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
"""What file systems answer that cannot reserve space."""
SLACK = 1 << 20
"""Bytes reserved for names and headers."""
CODES_BLOCK = 1 << 20
"""Codes renumbered at a time."""


class H5adSink:
    """A copy of the input file that takes answers block by block.

    Parameters
    ----------
    target
        Where to write, and the prefix of the columns.
    source
        The query; must come from a file.
    labels
        Names of populations and types.
    hidden
        The file to write and then to put in the target's place.
    dim
        Width D of the embedding.

    Raises
    ------
    OutputError
        `obs` is of a layout that cannot be extended, holds columns of the same names that something else wrote, or the
        file cannot be copied.
    """

    def __init__(self, target: Target, source: Source, labels: Labels, *, hidden: HiddenFile, dim: int) -> None:
        import h5py

        if source.path is None:
            msg = f"Cannot write '{target.path}': only an input file can be copied."
            raise OutputError(msg)
        self.path = target.path
        self.hidden = hidden
        columns = target.columns
        self.columns = (*columns, *(column.key for column in labels.further))
        with output_errors(self.path):
            shutil.copyfile(source.path, hidden.path)
            _reserve(hidden.path, source.n_cells * 4 * (dim + len(self.columns) + 2))
            # Nobody else knows the hidden file, and network file systems often refuse locks.
            self.file = h5py.File(hidden.path, "r+", locking=False)
        try:
            with output_errors(self.path):
                obs = _open_parts(self.file)
                self.warnings = _make_room(self.file, obs, self.columns, target)
                n = source.n_cells
                self.categoricals = {
                    "cell_type": _Categorical(obs, columns.cell_type, n, labels.cell_types),
                    "population": _Categorical(obs, columns.population, n, labels.populations),
                }
                self.arrays = {
                    "confidence": _create_array(obs, columns.confidence, (n,)),
                    "margin": _create_array(obs, columns.margin, (n,)),
                    "embedding": _create_array(self.file["obsm"], SLOTS.embedding, (n, dim)),
                    "map": _create_array(self.file["obsm"], SLOTS.map, (n, 2)),
                }
                self.further = [
                    (column, _Categorical(obs, column.key, n, column.names))
                    if isinstance(column, TextColumn)
                    else (column, _create_array(obs, column.key, (n,)))
                    for column in labels.further
                ]
        except BaseException:
            self.close()
            raise

    def write(self, block: AssignedBlock) -> None:
        """Append the answers of the next cells."""
        rows = slice(block.start, block.start + len(block.cell_type))
        with output_errors(self.path):
            for name, categorical in self.categoricals.items():
                categorical.codes[rows] = encode(getattr(block, name), categorical.names)
            for name, array in self.arrays.items():
                array[rows] = getattr(block, name)
            for column, place in self.further:
                (place.codes if isinstance(place, _Categorical) else place)[rows] = column.take(block)

    def finish(self, about: Mapping[str, object]) -> None:
        """Complete the file; `about` becomes `uns['scrcl']`."""
        with output_errors(self.path):
            further = [place for _, place in self.further if isinstance(place, _Categorical)]
            for categorical in (*self.categoricals.values(), *further):
                categorical.finish()
            _write_mapping(self.file["uns"], SLOTS.uns, {**about, COLUMNS_KEY: list(self.columns)})
            self.file.close()
        self.hidden.commit()

    def close(self) -> None:
        """Let go of the file."""
        try:
            self.file.close()
        except (OSError, RuntimeError):  # a full disk: the error that led here is the one to tell
            return


class _Categorical:
    """A categorical column in the making: codes first, and in the end only the categories that occur."""

    def __init__(self, obs: h5py.Group, key: str, n_cells: int, names: tuple[str, ...]) -> None:
        self.names = names
        self.group = obs.create_group(key)
        self.group.attrs.update({"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False})
        kind = np.min_scalar_type(-len(names))  # signed: pandas keeps -1 for missing
        self.codes = _create_array(self.group, "codes", (n_cells,), kind)
        self.used = np.zeros(len(names), dtype=bool)

    def finish(self) -> None:
        """Renumber the codes by the categories that occur, in the model's order."""
        blocks = [slice(i, i + CODES_BLOCK) for i in range(0, len(self.codes), CODES_BLOCK)]
        for rows in blocks:
            self.used[np.unique(self.codes[rows])] = True
        new_codes = np.cumsum(self.used) - 1
        for rows in blocks:
            self.codes[rows] = new_codes[self.codes[rows]]
        names = [name for name, used in zip(self.names, self.used, strict=True) if used]
        _write_strings(self.group, "categories", names)


def _reserve(path: Path, n_bytes: int) -> None:
    """Lengthen the file by what will be written; closing cuts it to what was needed.

    A full disk shows now, and not after hours; and HDF5 cannot always close a file that it cannot write.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), path.stat().st_size, n_bytes + SLACK)
        except OSError as error:
            if error.errno not in NO_RESERVING:
                raise


def _open_parts(file: h5py.File) -> h5py.Group:
    """Return the group `obs`, and see to it that `obsm` and `uns` are there."""
    obs = check_layout(file)
    for key in ("obsm", "uns"):
        if key not in file:
            _create_dict(file, key)
    return obs


def _make_room(file: h5py.File, obs: h5py.Group, columns: tuple[str, ...], target: Target) -> tuple[str, ...]:
    """Remove what the answers replace, list the columns in `obs`, and return what the user should know."""
    from h5py import string_dtype

    replaced = find_replaced(file, columns, target)
    for group, key in replaced:
        del file[group][key]
    gone = {*columns, *(key for group, key in replaced if group == "obs")}
    order = [key for key in map(text, obs.attrs.get("column-order", ())) if key not in gone] + list(columns)
    obs.attrs.create("column-order", order, dtype=string_dtype())
    if not replaced:
        return ()
    return (f"The copy replaces {', '.join(f'{group}/{key}' for group, key in replaced)} of the input.",)


def _create_array(group: h5py.Group, key: str, shape: tuple[int, ...], kind: Any = np.float32) -> h5py.Dataset:  # noqa: ANN401 - any dtype
    # Contiguous and uncompressed: blocks are written in place, and embeddings hardly compress.
    array = group.create_dataset(key, shape=shape, dtype=kind)
    array.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    return array


def _create_dict(parent: h5py.Group, key: str) -> h5py.Group:
    group = parent.create_group(key)
    group.attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
    return group


def _write_strings(group: h5py.Group, key: str, values: list[str]) -> None:
    from h5py import string_dtype

    array = group.create_dataset(key, data=np.array(values, dtype=object), dtype=string_dtype())
    array.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})


def _write_mapping(parent: h5py.Group, key: str, mapping: Mapping[str, object]) -> None:
    """Write nested dicts of strings, numbers and lists of strings."""
    from h5py import string_dtype

    group = _create_dict(parent, key)
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            _write_mapping(group, name, value)
        elif isinstance(value, list | tuple):
            _write_strings(group, name, [str(item) for item in value])
        elif isinstance(value, str):
            scalar = group.create_dataset(name, data=value, dtype=string_dtype())
            scalar.attrs.update({"encoding-type": "string", "encoding-version": "0.2.0"})
        else:
            scalar = group.create_dataset(name, data=_number(value))
            scalar.attrs.update({"encoding-type": "numeric-scalar", "encoding-version": "0.2.0"})


def _number(value: object) -> NDArray[Any]:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        msg = f"uns holds strings, numbers, lists of strings and dicts of these, not {type(value).__name__}"
        raise TypeError(msg)
    return array
