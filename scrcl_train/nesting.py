"""Labels at several levels: the coarser name that each of the finest types belongs to, found from the cells."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.columns import find_taken
from scrcl_infer.contract import LabelLevel
from scrcl_infer.errors import InputError
from scrcl_infer.levels import find_splits
from scrcl_infer.target import ColumnNames
from scrcl_train.naming import compute_types, encode_types

AGREEMENT = 0.9
"""Least share of a type's labelled cells that must carry the same coarser label."""


def check_label_keys(keys: tuple[str, ...]) -> None:
    """Refuse label keys that stand twice, or whose columns of answers would have the name of another column.

    Raises
    ------
    InputError
        The text names them.
    """
    if len(set(keys)) != len(keys) or "" in keys:
        msg = f"--labels names {', '.join(map(repr, keys))}; expected different columns of obs, the finest first."
        raise InputError(msg)
    if taken := find_taken(keys[1:], ColumnNames._fields):
        msg = (
            f"The coarser label {', '.join(map(repr, taken))} would be answered in a column whose name is taken "
            f"({', '.join(ColumnNames._fields)}, or another level's). Copy it to another column of obs, or put it "
            "first if it is the finest."
        )
        raise InputError(msg)


def find_levels(
    finest: NDArray[np.object_],
    coarser: Mapping[str, NDArray[np.object_]],
    ontology_ids: Mapping[str, str] | None = None,
) -> tuple[LabelLevel, ...]:
    """Find the coarser name of each type at each level.

    Parameters
    ----------
    finest
        (n,) labels that the type head learns, '' where a cell has none.
    coarser
        Key to (n,) labels, finer levels first, '' where a cell has none.
    ontology_ids
        Name to ontology id.

    Returns
    -------
    tuple of LabelLevel
        Names in the order of `scrcl_train.naming.compute_types(finest)`.

    Raises
    ------
    InputError
        The cells of a type carry several labels of a level, none of them in 90 % of the cells; a type has no cell with
        a label of that level; or a level does not nest in the next one. The text lists them.
    """
    types = compute_types(finest)
    names = {key: _find_parents(finest, types, labels, key) for key, labels in coarser.items()}
    for finer_key, key in pairwise(names):
        if splits := find_splits(names[finer_key], names[key]):
            listed = "; ".join(f"{name!r} is in {' and '.join(map(repr, where))}" for name, where in splits.items())
            msg = (
                f"obs['{finer_key}'] does not nest in obs['{key}']: {listed}. Give the finest key first and the "
                "coarsest last, or give the split names different names."
            )
            raise InputError(msg)
    ids = ontology_ids or {}
    return tuple(
        LabelLevel(key, of_type, tuple(ids.get(name, "") for name in of_type)) for key, of_type in names.items()
    )


def _find_parents(
    finest: NDArray[np.object_], types: tuple[str, ...], labels: NDArray[np.object_], key: str
) -> tuple[str, ...]:
    """Return the label of at least 90 % of each type's labelled cells."""
    parents = compute_types(labels)
    codes, of_parent = encode_types(finest, types), encode_types(labels, parents)
    both = (codes >= 0) & (of_parent >= 0)
    votes = np.zeros((len(types), len(parents)), dtype=np.int64)
    np.add.at(votes, (codes[both], of_parent[both]), 1)
    offenders = []
    for name, row in zip(types, votes, strict=True):
        if not row.sum():
            offenders.append(f"no cell of {name!r} has a label")
        elif row.max() < AGREEMENT * row.sum():
            most = np.argsort(-row, kind="stable")
            offenders.append(f"{name!r}: " + ", ".join(f"{row[i]} x {parents[i]!r}" for i in most if row[i]))
    if offenders:
        msg = (
            f"obs['{key}'] is no coarser level of the finest labels, at least {AGREEMENT:.0%} of a type's cells must "
            f"have the same label: {'; '.join(offenders)}. Give the finest key first, mend the labels of these cells, "
            "or leave the key out."
        )
        raise InputError(msg)
    return tuple(parents[i] for i in votes.argmax(axis=1))
