"""The variable genes that the peers see, and that a file may be cut to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import scipy.sparse as sp

if TYPE_CHECKING:
    import anndata


def mark_variable(counts: sp.csr_matrix, n_genes: int) -> anndata.AnnData:
    """Return log1p of counts per ten thousand and `var['highly_variable']` (`seurat`), of as many genes as there are.

    Parameters
    ----------
    counts
        (n, g) counts.
    n_genes
        Variable genes to mark.
    """
    import anndata
    import scanpy as sc

    adata = anndata.AnnData(counts.copy())
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=min(n_genes, adata.n_vars), flavor="seurat")
    return adata
