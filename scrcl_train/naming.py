"""Names for populations and types: from the labels of their cells where there are any, else 'P1', 'P2', ..."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.contract import CellType, Population

NO_LABEL = ""
"""The label of a cell that has none, as `scrcl_train.data.read_labels` gives it."""


def name_populations(
    populations: NDArray[np.int64],
    cell_labels: NDArray[np.object_] | None = None,
    *,
    ontology_ids: Mapping[str, str] | None = None,
) -> tuple[tuple[Population, ...], tuple[CellType, ...]]:
    """Describe populations and types.

    Parameters
    ----------
    populations
        (n,) in [0, K), every number used.
    cell_labels
        (n,) strings, '' for a cell without label; None without labels.
    ontology_ids
        Type name to Cell Ontology id.

    Returns
    -------
    tuple
        The K populations in the order of their numbers, named 'P1', 'P2', ... by decreasing size; and the types: with
        labels one for each label, by decreasing size (the order of the student's type head), else one for each
        population. With labels, a population takes the label of most of its labelled cells; one that has none takes
        the commonest label of all, with purity 0.

    Raises
    ------
    ValueError
        A number in [0, K) is not used.
    """
    sizes = np.bincount(populations)
    if not sizes.all():
        msg = f"Populations {np.flatnonzero(sizes == 0).tolist()} have no cell; number them without gaps."
        raise ValueError(msg)
    rank = np.empty(sizes.size, dtype=np.int64)
    rank[np.argsort(-sizes, kind="stable")] = np.arange(sizes.size)
    names = [f"P{r + 1}" for r in rank]
    ids = ontology_ids or {}
    types = compute_types(cell_labels)
    if cell_labels is None or not types:
        found = [Population(name, name, int(size)) for name, size in zip(names, sizes, strict=True)]
        return tuple(found), tuple(CellType(p.name, p.n_cells, ids.get(p.name)) for p in found)
    codes = encode_types(cell_labels, types)
    described = []
    for k, name in enumerate(names):
        votes = np.bincount(codes[(populations == k) & (codes >= 0)], minlength=len(types))
        # argmax takes the first of equals, that is the larger type
        best = int(votes.argmax())
        purity = float(votes[best] / votes.sum()) if votes.sum() else 0.0
        described.append(Population(name, types[best], int(sizes[k]), purity))
    per_type = np.bincount(codes[codes >= 0], minlength=len(types))
    return tuple(described), tuple(
        CellType(name, int(n), ids.get(name)) for name, n in zip(types, per_type, strict=True)
    )


def compute_types(cell_labels: NDArray[np.object_] | None) -> tuple[str, ...]:
    """Return the distinct labels by decreasing number of cells, equals in alphabetical order; () without labels."""
    if cell_labels is None:
        return ()
    names, counts = np.unique(_strings(cell_labels), return_counts=True)
    order = np.lexsort((names, -counts))
    return tuple(str(names[i]) for i in order if names[i] != NO_LABEL)


def encode_types(cell_labels: NDArray[np.object_], types: tuple[str, ...]) -> NDArray[np.int64]:
    """Return each cell's index into `types`, (n,), -1 for a label that is not among them."""
    index = {name: i for i, name in enumerate(types)}
    return np.array([index.get(label, -1) for label in _strings(cell_labels)], dtype=np.int64)


def _strings(cell_labels: NDArray[np.object_]) -> NDArray[np.str_]:
    return np.array([label if isinstance(label, str) else NO_LABEL for label in cell_labels], dtype=np.str_)
