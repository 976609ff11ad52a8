"""Where answers go and under which names: paths, endings, columns, and what the indices of answers stand for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.atomic import check_path
from scrcl_infer.columns import Column, make_columns
from scrcl_infer.contract import UNKNOWN, Manifest
from scrcl_infer.errors import OutputError

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
    """Put before 'cell_type', 'population', 'confidence', 'margin' and 'strangeness', and before the keys of coarser
    levels."""
    ontology: bool = False
    """Write the types' ontology ids too, under CELLxGENE's own column name."""

    @property
    def columns(self) -> ColumnNames:
        """The prefixed column names."""
        return ColumnNames(*(self.obs_prefix + name for name in ColumnNames._fields))


@dataclass(frozen=True)
class Labels:
    """The strings that the indices of answers stand for."""

    populations: tuple[str, ...]
    cell_types: tuple[str, ...]
    further: tuple[Column, ...] = ()
    """The columns that not every bundle's answers have: strangeness, coarser levels and ontology ids."""

    @classmethod
    def from_manifest(cls, manifest: Manifest, target: Target | None = None, *, strangeness: bool = False) -> Labels:
        """Take the names from a manifest, and add 'unknown' at the end of each where it is not among them.

        With a target, also the further columns that it asks for, and that of strangeness where the bundle measures it;
        refuses what the bundle cannot give (OutputError).
        """
        populations = tuple(p.name for p in manifest.populations)
        cell_types = tuple(t.name for t in manifest.cell_types)
        names = _with_unknown(populations), _with_unknown(cell_types)
        if target is None:
            return cls(*names)
        columns = make_columns(manifest, target.obs_prefix, ontology=target.ontology, strangeness=strangeness)
        return cls(*names, columns)


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


def _with_unknown(names: tuple[str, ...]) -> tuple[str, ...]:
    return names if UNKNOWN in names else (*names, UNKNOWN)
