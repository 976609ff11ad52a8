"""Simulated tissue: layers side by side on a hexagonal grid, each with genes of its own, and their domains known."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import scipy.sparse as sp


def layered_section(
    *, side: int = 20, n_layers: int = 4, n_genes: int = 120, seed: int = 0, name: str = "A", depth: float = 1.0
) -> ad.AnnData:
    """`side` x `side` spots; `obs['layer']` is the truth. The same genes mark the same layer whatever the seed."""
    rng = np.random.default_rng(seed)
    row, column = (index.ravel() for index in np.divmod(np.arange(side * side), side))
    places = np.column_stack([column + 0.5 * (row % 2), row * np.sqrt(3) / 2])
    wave = np.sin(places[:, 1] / 3 + seed)
    layer = np.clip((places[:, 0] + wave) / (side / n_layers), 0, n_layers - 1e-9).astype(int)
    rate = np.random.default_rng(7).gamma(1.0, 0.6, n_genes)  # of each gene, the same in every section
    fold = np.ones((n_layers, n_genes))
    for k in range(n_layers):
        fold[k, k * 10 : (k + 1) * 10] = 3.0  # markers of the layer
    counts = rng.poisson(depth * rate * fold[layer] * rng.gamma(20, 1 / 20, (side * side, 1)))
    obs = pd.DataFrame(
        {"layer": [f"L{k + 1}" for k in layer], "slice": name}, index=[f"{name}-{i}" for i in range(side * side)]
    )
    adata = ad.AnnData(
        sp.csr_matrix(counts, dtype=np.float32), obs=obs, var=pd.DataFrame(index=[f"GENE{i}" for i in range(n_genes)])
    )
    adata.obsm["spatial"] = places * 100
    return adata
