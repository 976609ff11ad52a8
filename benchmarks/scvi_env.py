"""scVI and scANVI in an environment of their own, as scvi-tools brings a hundred packages.

`python -m benchmarks.scvi_env` makes it; no benchmark does so unasked.
"""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from benchmarks.environments import Environment
from benchmarks.exchange import Query, ask_worker

SCVI = Environment("scvi", ("scvi-tools==1.4.2", "torch==2.13.0"), constrained=True, on_request=True)
SCANVI = replace(SCVI, worker="scanvi")
HOW = f"{SCVI.requirements[0]} in an environment of its own, which `python -m benchmarks.scvi_env` makes"
"""For the notes under the tables."""
SCANVI_SETTINGS = {"hvgs": 2000, "query_epochs": 100}
"""Genes of the reference, and epochs of the query's own fit: the figure of the scvi-tools tutorial."""


def compute_latent(counts: NDArray[np.float32], *, seed: int, n_latent: int) -> NDArray[np.float32]:
    """Fit scVI with its defaults.

    Parameters
    ----------
    counts
        (n, g) raw counts of the genes that it is to see.

    Returns
    -------
    (n, n_latent): means of the cells' latent distributions.

    Raises
    ------
    WorkerError
        scvi-tools failed.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        np.save(folder / "counts.npy", counts, allow_pickle=False)
        (folder / "settings.json").write_text(json.dumps({"seed": seed, "n_latent": n_latent}), encoding="utf-8")
        SCVI.run(folder)
        return np.asarray(np.load(folder / "latent.npy", allow_pickle=False), dtype=np.float32)


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
    return ask_worker(SCANVI, counts, genes, labels, [query], settings={"seed": seed, **SCANVI_SETTINGS})[0]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    raise SystemExit(0 if SCVI.make() else 1)
