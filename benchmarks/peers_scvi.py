"""scVI + Leiden, run only where scvi-tools is installed (`pip install scvi-tools`)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import Cells
from benchmarks.methods import Column, Method, Outcome
from benchmarks.peers_clustering import N_HVGS, N_NEIGHBORS, cluster_leiden, cluster_leiden_at, compute_graph

N_LATENT = 10
"""scvi-tools' default."""


def prepare_counts(cells: Cells) -> NDArray[np.float32]:
    """Return (n, 2000) float32 dense counts of the same highly variable genes as the other peers."""
    import anndata
    import scanpy as sc

    adata = anndata.AnnData(cells.counts.copy())
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=min(N_HVGS, adata.n_vars), flavor="seurat")
    chosen = adata.var["highly_variable"].to_numpy()
    return np.asarray(cells.counts[:, chosen].toarray(), dtype=np.float32)


def run_scvi(counts: NDArray[np.float32], cells: Cells, seed: int) -> Outcome:
    """Fit scVI with its defaults and cluster its latent space with Leiden, at resolution 1 and at the true K."""
    import anndata
    import scvi  # type: ignore[import-not-found, unused-ignore]

    scvi.settings.seed = seed
    adata = anndata.AnnData(counts)
    scvi.model.SCVI.setup_anndata(adata)
    model = scvi.model.SCVI(adata, n_latent=N_LATENT)
    model.train(enable_progress_bar=False)
    graph = compute_graph(np.asarray(model.get_latent_representation(), dtype=np.float32))
    return Outcome(
        {
            "scvi-leiden": cluster_leiden(graph, 1.0, seed),
            "scvi-leiden-k": cluster_leiden_at(graph, cells.n_types, seed),
        }
    )


SCVI: tuple[Method, ...] = (
    Method(
        "scvi",
        (
            Column("scvi-leiden-k", "scVI + Leiden at true K", "given"),
            Column("scvi-leiden", "scVI + Leiden, r = 1", "estimated"),
        ),
        prepare_counts,
        run_scvi,
        settings={"n_latent": N_LATENT, "n_hvgs": N_HVGS, "n_neighbors": N_NEIGHBORS},
        packages=("scvi-tools", "torch", "scanpy", "igraph"),
        needs=("scvi",),
    ),
)
