"""Cells to a worker in another environment and answers back, through `.npz` files in a temporary folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from benchmarks.environments import Environment

Settings = Mapping[str, int | float | bool]


@dataclass(frozen=True)
class Query:
    """Cells to answer for."""

    counts: sp.csr_matrix
    """(m, h)"""
    genes: NDArray[np.object_]
    """(h,) unique names."""
    places: NDArray[np.float64] | None = None
    """(m, 2) of spots; no peer can use them."""


def ask_worker(
    environment: Environment,
    counts: sp.csr_matrix,
    genes: NDArray[np.object_],
    labels: NDArray[np.object_],
    queries: Sequence[Query],
    *,
    settings: Settings,
) -> list[NDArray[np.object_]]:
    """Let a worker learn the reference and answer for each query.

    Returns
    -------
    For each query (2, m): types and confidences.

    Raises
    ------
    WorkerError
        The worker failed.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_cells(folder / "reference.npz", Query(counts, genes), labels)
        for number, query in enumerate(queries):
            write_cells(folder / f"query{number}.npz", query)
        (folder / "settings.json").write_text(json.dumps(dict(settings) | {"queries": len(queries)}), encoding="utf-8")
        environment.run(folder)
        return [read_answers(folder / f"answers{number}.npz") for number in range(len(queries))]


def write_cells(path: Path, cells: Query, labels: NDArray[np.object_] | None = None) -> None:
    """Write counts, names and labels as plain arrays: text as numpy strings, so that nothing is ever unpickled."""
    matrix = sp.csr_matrix(cells.counts)
    arrays: dict[str, NDArray[Any]] = {
        "data": matrix.data,
        "indices": matrix.indices,
        "indptr": matrix.indptr,
        "shape": np.array(matrix.shape),
        "genes": cells.genes.astype(np.str_),
    }
    if labels is not None:
        arrays["labels"] = labels.astype(np.str_)
    np.savez(path, allow_pickle=False, **arrays)


def read_answers(path: Path) -> NDArray[np.object_]:
    """Return a worker's answers, (2, m): types and confidences."""
    with np.load(path, allow_pickle=False) as stored:
        return np.stack([stored["types"].astype(object), stored["confidence"].astype(object)])
