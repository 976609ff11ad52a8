"""CellTypist 1.7 in an environment of its own: its training asks scikit-learn for an option that 1.8 took away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from benchmarks.environments import Environment
from benchmarks.exchange import Query, ask_worker

CELLTYPIST = Environment(
    "celltypist",
    (
        "celltypist==1.7.1",
        "scikit-learn==1.7.2",
        "scanpy==1.11.5",
        "anndata==0.12.19",
        "numpy==2.4.6",
        "pandas==2.3.3",
        "scipy==1.17.1",
        "pynndescent==0.5.13",
    ),
)
NOTE = (
    f"{', '.join(CELLTYPIST.requirements[:2])} in an environment of its own; nothing in it depends on the seed, so "
    "that it is trained once for all seeds, under 'preparation'."
)
"""For the notes under the tables."""


def answer_celltypist(
    counts: sp.csr_matrix,
    genes: NDArray[np.object_],
    labels: NDArray[np.object_],
    queries: Sequence[Query],
    *,
    is_log: bool = False,
) -> list[NDArray[np.object_]]:
    """Train CellTypist once with its defaults and ask it for each query.

    Parameters
    ----------
    counts
        (n, g) raw counts of the reference; log values where `is_log`.
    genes
        (g,) unique names.
    labels
        (n,) strings.
    queries
        Cells to answer for; their values are of the same kind.
    is_log
        The values are log1p of something: undone, brought to ten thousand a cell, which CellTypist insists on, and
        logged again.

    Returns
    -------
    For each query (2, m): the best match, never 'unassigned', and the highest of CellTypist's one-against-the-rest
    probabilities. No majority voting.

    Raises
    ------
    WorkerError
        CellTypist failed.
    """
    return ask_worker(CELLTYPIST, counts, genes, labels, queries, settings={"is_log": is_log})
