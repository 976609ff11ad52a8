"""scVI + Leiden: scVI in an environment of its own, Leiden here, as for the other peers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import Cells
from benchmarks.methods import Column, Method, Outcome
from benchmarks.peers_clustering import (
    N_HVGS,
    N_NEIGHBORS,
    RESOLUTIONS,
    cluster_leiden,
    cluster_leiden_at,
    compute_graph,
)
from benchmarks.scvi_env import HOW, SCVI, compute_latent
from benchmarks.variable_genes import mark_variable

N_LATENT = 10
"""scvi-tools' default."""
NOTE = f"{HOW}; its defaults on the raw counts of the peers' 2,000 genes, no batches."


def prepare_counts(cells: Cells) -> NDArray[np.float32]:
    """Return (n, 2000) float32 dense counts of the same highly variable genes as the other peers."""
    chosen = mark_variable(cells.counts, N_HVGS).var["highly_variable"].to_numpy()
    return np.asarray(cells.counts[:, chosen].toarray(), dtype=np.float32)


def run_scvi(counts: NDArray[np.float32], cells: Cells, seed: int) -> Outcome:
    """Fit scVI once and cluster its latent space with Leiden, at resolution 1 and at the true K."""
    graph = compute_graph(compute_latent(counts, seed=seed, n_latent=N_LATENT))
    return Outcome(
        {
            "scvi-leiden": cluster_leiden(graph, 1.0, seed),
            "scvi-leiden-k": cluster_leiden_at(graph, cells.n_types, seed),
        }
    )


SCVI_METHOD = Method(
    "scvi",
    (
        Column("scvi-leiden-k", "scVI + Leiden at true K", "given", NOTE),
        Column("scvi-leiden", "scVI + Leiden, r = 1", "estimated", NOTE),
    ),
    prepare_counts,
    run_scvi,
    settings={
        "requirements": SCVI.requirements,
        "n_latent": N_LATENT,
        "n_hvgs": N_HVGS,
        "n_neighbors": N_NEIGHBORS,
        "iterations": 2,
        "resolutions": RESOLUTIONS,
    },
    packages=("anndata", "igraph", "numpy", "scanpy", "scikit-learn", "scipy"),
    environment=SCVI,
)
