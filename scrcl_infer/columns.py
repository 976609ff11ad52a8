"""Columns that some bundles' answers have and others' lack: strangeness, names at coarser levels, ontology ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.contract import UNKNOWN
from scrcl_infer.errors import OutputError
from scrcl_infer.levels import list_parents

if TYPE_CHECKING:
    from scrcl_infer.contract import LabelLevel, Manifest
    from scrcl_infer.result import AssignedBlock

ONTOLOGY_COLUMN = "cell_type_ontology_term_id"
"""CELLxGENE's own name: it takes no prefix."""
STRANGENESS = "strangeness"
"""Takes the prefix; only bundles that reject by it have it."""
CONFIDENCE = "_confidence"
"""Put behind a level's key to name the column of its probability."""


@dataclass(frozen=True)
class TextColumn:
    """A name for each type."""

    key: str
    """Name of the column, with its prefix."""
    names: tuple[str, ...]
    """In alphabetical order, 'unknown' last."""
    of_type: tuple[int, ...]
    """(T,) index into `names` of each type."""

    def name(self, cell_type: NDArray[np.int32]) -> NDArray[np.object_]:
        """Return the names (N,) of types (N,), -1 being the unknown."""
        return np.array(self.names, dtype=object)[self._index(cell_type)]

    def take(self, block: AssignedBlock) -> NDArray[np.int32]:
        """Return the cells' indices into `names`, (N,)."""
        return self._index(block.cell_type)

    def values(self, block: AssignedBlock) -> list[str]:
        """Return the cells' names, (N,)."""
        values: list[str] = self.name(block.cell_type).tolist()
        return values

    def _index(self, cell_type: NDArray[np.int32]) -> NDArray[np.int32]:
        # The last place is that of 'unknown', and -1 the type of an unknown cell.
        return np.array([*self.of_type, len(self.names) - 1], dtype=np.int32)[cell_type]


@dataclass(frozen=True)
class NumberColumn:
    """The probability of a coarser name."""

    key: str
    """Name of the column, with its prefix."""
    level: int
    """Index of the level."""

    def take(self, block: AssignedBlock) -> NDArray[np.float32]:
        """Return the cells' probabilities, (N,)."""
        return block.level_confidence[:, self.level]

    def values(self, block: AssignedBlock) -> list[float]:
        """Return the cells' probabilities as plain numbers, (N,)."""
        values: list[float] = self.take(block).tolist()
        return values


@dataclass(frozen=True)
class StrangenessColumn:
    """How far a cell lies outside of what the model knows."""

    key: str
    """Name of the column, with its prefix."""

    def take(self, block: AssignedBlock) -> NDArray[np.float32]:
        """Return the cells' strangeness, (N,); NaN for a cell without counts."""
        # Only bundles that measure it have this column.
        return np.full(len(block.cell_type), np.nan, np.float32) if block.strangeness is None else block.strangeness

    def values(self, block: AssignedBlock) -> list[float]:
        """Return the cells' strangeness as plain numbers, (N,)."""
        values: list[float] = self.take(block).tolist()
        return values


Column = TextColumn | NumberColumn | StrangenessColumn


def make_columns(
    manifest: Manifest, prefix: str, *, ontology: bool = False, strangeness: bool = False
) -> tuple[Column, ...]:
    """Return the columns that a bundle's answers have beyond the four of every bundle, in their order.

    Parameters
    ----------
    manifest
        Types and levels of the bundle.
    prefix
        Put before 'strangeness' and the keys of the levels.
    ontology
        Add the column of ontology ids.
    strangeness
        Add the column of strangeness; for bundles with a `Rejection`.

    Raises
    ------
    OutputError
        Ontology ids are asked for and the bundle has none.
    """
    columns: list[Column] = [StrangenessColumn(prefix + STRANGENESS)] if strangeness else []
    for i, level in enumerate(manifest.levels):
        columns += [make_level_column(level, prefix), NumberColumn(f"{prefix}{level.key}{CONFIDENCE}", i)]
    if ontology:
        columns.append(make_ontology_column(manifest))
    return tuple(columns)


def make_level_column(level: LabelLevel, prefix: str = "") -> TextColumn:
    """Return the column of the names at one coarser level."""
    names, of_type = list_parents(level)
    return TextColumn(prefix + level.key, (*names, UNKNOWN), tuple(of_type.tolist()))


def make_ontology_column(manifest: Manifest) -> TextColumn:
    """Return the column of ontology ids, 'unknown' for types that have none.

    Raises
    ------
    OutputError
        No type has one.
    """
    ids = [cell_type.ontology_id or UNKNOWN for cell_type in manifest.cell_types]
    names = (*sorted(set(ids) - {UNKNOWN}), UNKNOWN)
    if len(names) == 1:
        msg = (
            f"The types of bundle '{manifest.name}' have no ontology ids, so there are none to write. Leave out "
            "--ontology; or give ids to a copy of the bundle with `scrcl-models name`, or train with --ontology-ids."
        )
        raise OutputError(msg)
    return TextColumn(ONTOLOGY_COLUMN, names, tuple(names.index(term) for term in ids))


def find_taken(keys: tuple[str, ...], fixed: tuple[str, ...]) -> list[str]:
    """Return those keys of levels whose columns would have the name of another column of the answers.

    Parameters
    ----------
    keys
        Of the coarser levels.
    fixed
        Names, without prefix, that every bundle's answers have.
    """
    taken = {*fixed, STRANGENESS, ONTOLOGY_COLUMN}
    found = []
    for key in keys:
        own = {key, key + CONFIDENCE}
        if own & taken:
            found.append(key)
        taken |= own
    return found
