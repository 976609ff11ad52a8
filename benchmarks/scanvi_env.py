"""ScANVI in an environment of its own, as scvi-tools brings a hundred packages: `python -m benchmarks.scanvi_env`."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from benchmarks.environments import Environment
from benchmarks.exchange import Query, ask_worker

SCANVI = Environment("scanvi", ("scvi-tools==1.4.2", "torch==2.13.0"), constrained=True, on_request=True)
SETTINGS = {"hvgs": 2000, "query_epochs": 100}
"""Genes of the reference, and epochs of the query's own fit: the figure of the scvi-tools tutorial."""
PAIRS = ("panc8", "scmix")
"""Beginnings of the names of the small pairs: on a CPU, 400 epochs on larger ones take too long."""


def answer_scanvi(
    counts: sp.csr_matrix, genes: NDArray[np.object_], labels: NDArray[np.object_], query: Query, *, seed: int
) -> NDArray[np.object_]:
    """Train scVI and scANVI on the reference with their defaults, fit the query to them, and ask for its types.

    Returns
    -------
    (2, m): types and highest probabilities.

    Raises
    ------
    WorkerError
        scvi-tools failed.
    """
    return ask_worker(SCANVI, counts, genes, labels, [query], settings={"seed": seed, **SETTINGS})[0]


if __name__ == "__main__":
    raise SystemExit(0 if SCANVI.make() else 1)
