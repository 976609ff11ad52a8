"""Where answers go: a copy of the input with new columns, or a table; complete under its name, or not there at all.

A sink takes blocks of answers as they come and keeps none of them. It writes to a hidden file beside the target, which
takes the target's name only in `finish`: an error, a full disk or Ctrl-C leaves no half-written target, and the input
is never touched.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.atomic import HiddenFile, check_path
from scrcl_infer.contract import UNKNOWN, Manifest
from scrcl_infer.errors import OutputError
from scrcl_infer.result import AssignedBlock

if TYPE_CHECKING:
    from scrcl_infer.h5ad import Source

STDOUT = Path("-")
"""The target that stands for standard output."""
H5AD_ENDING = ".h5ad"
TABLE_ENDINGS = (".csv", ".csv.gz", ".parquet", ".tsv", ".tsv.gz")
DEFAULT_PREFIX = "scrcl_"


class ColumnNames(NamedTuple):
    """The names of the answers in `obs` and in tables."""

    cell_type: str
    population: str
    confidence: str
    margin: str


class SlotNames(NamedTuple):
    """The names of the other answers in an AnnData."""

    embedding: str = "X_scrcl"  # obsm, (n, D)
    map: str = "X_scrcl_map"  # obsm, (n, 2)
    uns: str = "scrcl"


SLOTS = SlotNames()


@dataclass(frozen=True)
class Target:
    """Where to write, and how."""

    path: Path
    """Ending `.h5ad` or one of `TABLE_ENDINGS`; `-` is a TSV on standard output."""
    force: bool = False
    """Replace an existing file, and columns of the same names that something else wrote."""
    obs_prefix: str = DEFAULT_PREFIX
    """Put before 'cell_type', 'population', 'confidence' and 'margin'."""

    @property
    def columns(self) -> ColumnNames:
        """The prefixed column names."""
        return ColumnNames(*(self.obs_prefix + name for name in ColumnNames._fields))


class Sink(Protocol):
    """Takes blocks of answers, in order; the target is there only after `finish`."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about the target."""

    def write(self, block: AssignedBlock) -> None:
        """Append the answers of the next cells."""

    def finish(self, about: Mapping[str, object]) -> None:
        """Complete the target; `about` says how the answers came about, as plain strings, numbers and dicts."""

    def close(self) -> None:
        """Let go of open files; what was not finished is lost."""


@dataclass(frozen=True)
class Labels:
    """The strings that the indices of answers stand for."""

    populations: tuple[str, ...]
    cell_types: tuple[str, ...]

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> Labels:
        """Take the names from a manifest, and add 'unknown' at the end of each where it is not among them."""
        populations = tuple(p.name for p in manifest.populations)
        cell_types = tuple(t.name for t in manifest.cell_types)
        return cls(_with_unknown(populations), _with_unknown(cell_types))


def encode(indices: NDArray[np.int32], names: tuple[str, ...]) -> NDArray[np.int32]:
    """Return indices (N,) with -1 replaced by the index of 'unknown' in `names`."""
    return np.where(indices < 0, names.index(UNKNOWN), indices).astype(np.int32)


def check_target(target: Target, source: Path | None) -> None:
    """Refuse a target that cannot or must not be written, before any work is done.

    Parameters
    ----------
    target
        Where to write.
    source
        The input file, if there is one.

    Raises
    ------
    OutputError
        Unknown ending, missing folder, existing file without `force`, the input itself, a prefix with a slash, or an
        `.h5ad` target for an input that is no file.
    """
    if "/" in target.obs_prefix:
        msg = f"The prefix '{target.obs_prefix}' of the obs columns holds a '/', which `.h5ad` files do not allow."
        raise OutputError(msg)
    if target.path == STDOUT:
        return
    ending = find_ending(target.path)
    if ending == H5AD_ENDING and source is None:
        msg = f"Cannot write '{target.path}': only an input file can be copied. Write a table, or the AnnData itself."
        raise OutputError(msg)
    check_path(target.path, force=target.force, inputs=() if source is None else (source,))


def find_ending(path: Path) -> str:
    """Return the ending of a target's name, lower case, '.csv.gz' as one.

    Raises
    ------
    OutputError
        It is not one that can be written.
    """
    name = path.name.lower()
    known = (H5AD_ENDING, *TABLE_ENDINGS)
    ending = next((known_ending for known_ending in known if name.endswith(known_ending)), None)
    if ending is None:
        msg = f"Cannot tell from '{path.name}' what to write: its name must end in one of {', '.join(known)}."
        raise OutputError(msg)
    return ending


@contextlib.contextmanager
def open_sink(target: Target, source: Source, manifest: Manifest) -> Iterator[Sink]:
    """Open the sink that the target's ending asks for; leaving the context without `finish` leaves no target.

    Parameters
    ----------
    target
        Where to write; `-` is a TSV on standard output.
    source
        The query; an `.h5ad` target is a copy of its file, a table takes its cell names.
    manifest
        Names of populations and types, and the width of the embedding.

    Raises
    ------
    OutputError
        See `check_target`; or the input's `obs` is of a layout that cannot be extended.
    """
    check_target(target, source.path)
    labels = Labels.from_manifest(manifest)
    if target.path == STDOUT:
        from scrcl_infer.write_table import TextSink

        yield TextSink(target, source, labels, out=sys.stdout)
        return
    with HiddenFile(target.path, force=target.force) as hidden:
        sink = _make_sink(target, source, labels, hidden=hidden, dim=manifest.encoder.dim)
        try:
            yield sink
        finally:
            sink.close()


def _make_sink(target: Target, source: Source, labels: Labels, *, hidden: HiddenFile, dim: int) -> Sink:
    ending = find_ending(target.path)
    if ending == H5AD_ENDING:
        from scrcl_infer.write_h5ad import H5adSink

        return H5adSink(target, source, labels, hidden=hidden, dim=dim)
    from scrcl_infer.write_table import ParquetSink, TextSink

    if ending == ".parquet":
        return ParquetSink(target, source, labels, hidden=hidden)
    return TextSink(target, source, labels, out=hidden)


def _with_unknown(names: tuple[str, ...]) -> tuple[str, ...]:
    return names if UNKNOWN in names else (*names, UNKNOWN)
