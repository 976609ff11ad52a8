"""Coarser levels of the types: which name each type belongs to, and how probable that name is. Numpy only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.contract import UNKNOWN, LabelLevel, Manifest
from scrcl_infer.ontology import find_problem


def list_parents(level: LabelLevel) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Return the distinct names of a level in alphabetical order, and each type's index into them, (T,)."""
    names = tuple(sorted(set(level.names)))
    index = {name: i for i, name in enumerate(names)}
    return names, np.array([index[name] for name in level.names], dtype=np.int32)


def compute_level_confidence(
    posterior: NDArray[np.float64], cell_type: NDArray[np.int32], levels: Sequence[LabelLevel]
) -> NDArray[np.float64]:
    """Return the probability of the name that each cell's type belongs to: the sum over all types of that name.

    Parameters
    ----------
    posterior
        (N, T) calibrated probability of each type.
    cell_type
        (N,) index of a type, never -1.
    levels
        L coarser levels.

    Returns
    -------
    NDArray
        (N, L), each at least the probability of the type itself.
    """
    rows = np.arange(len(posterior))
    confidence = np.zeros((len(posterior), len(levels)))
    for i, level in enumerate(levels):
        names, parent = list_parents(level)
        summed = np.zeros((len(posterior), len(names)))
        # One column after the other: the order of additions must not depend on the number of rows.
        for column, of_type in enumerate(parent):
            summed[:, of_type] += posterior[:, column]
        confidence[:, i] = summed[rows, parent[cell_type]]
    return confidence


def find_splits(finer: Sequence[str], coarser: Sequence[str]) -> dict[str, list[str]]:
    """Return the finer names that belong to several coarser ones, with these; both sequences are (T,), by type."""
    belongs: dict[str, set[str]] = {}
    for name, parent in zip(finer, coarser, strict=True):
        belongs.setdefault(name, set()).add(parent)
    return {name: sorted(parents) for name, parents in belongs.items() if len(parents) > 1}


def find_level_problems(manifest: Manifest) -> Iterator[str]:
    """Yield what is wrong with the levels of a manifest; nothing where they are sound."""
    n_types, levels = len(manifest.cell_types), manifest.levels
    keys = [level.key for level in levels]
    if len(set(keys)) != len(keys):
        yield f"levels have the keys {keys}, expected keys that differ"
    if levels and not manifest.encoder.n_types:
        yield "levels are there without a type head"
    whole = True
    for level in levels:
        if not len(level.names) == len(level.ontology_ids) == n_types:
            found = f"{len(level.names)} names and {len(level.ontology_ids)} ontology ids"
            yield f"level '{level.key}' has {found}, expected {n_types} of each"
            whole = False
        if {"", UNKNOWN} & set(level.names):
            yield f"level '{level.key}' names a type '' or '{UNKNOWN}'"
        yield from (f"level '{level.key}': {p}" for term in set(level.ontology_ids) - {""} if (p := find_problem(term)))
    if not whole:
        return
    for level in levels:
        if find_splits(level.names, level.ontology_ids):
            yield f"level '{level.key}' gives one name several ontology ids"
    for finer, coarser in pairwise(levels):
        if splits := find_splits(finer.names, coarser.names):
            yield f"level '{finer.key}' does not nest in '{coarser.key}': {splits}"
