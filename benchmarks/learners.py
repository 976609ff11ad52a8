"""Simple methods that learn types and answer for any query: logistic regression, kNN, scanpy `ingest`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from benchmarks.exchange import Query
from benchmarks.pairs import Transfer

N_HVGS = 2000
N_PCS = 30
N_NEIGHBORS = 15
MAX_VALUE = 10.0

Ask = Callable[[NDArray[np.float32]], NDArray[np.object_]]
"""Log expression (m, g) of the reference's chosen genes -> types and confidences (2, m)."""


@dataclass(frozen=True)
class Reference:
    """The reference as the simple methods see it."""

    genes: NDArray[np.object_]
    """(g,) the chosen genes."""
    logged: NDArray[np.float32]
    """(n, g) log1p of counts per ten thousand over all genes of the file."""
    mean: NDArray[np.float32]
    """(g,) of `logged`."""
    sd: NDArray[np.float32]
    """(g,) of `logged`."""
    is_log: bool

    def scale(self, logged: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standardise log expression by the reference and clip it at 10."""
        scaled: NDArray[np.float32] = np.clip((logged - self.mean) / self.sd, -MAX_VALUE, MAX_VALUE)
        return scaled

    def read(self, query: Query) -> NDArray[np.float32]:
        """Return (m, g) log expression of a query; zero for a gene that it lacks."""
        logged = np.zeros((query.counts.shape[0], len(self.genes)), dtype=np.float32)
        _, here, there = np.intersect1d(self.genes.astype(str), query.genes.astype(str), return_indices=True)
        logged[:, here] = log_expression(query.counts, is_log=self.is_log)[:, there].toarray()
        return logged


def choose_genes(cells: Transfer, *, shared: bool) -> Reference:
    """Return the log expression of the reference's 2,000 most variable genes that three cells have.

    Parameters
    ----------
    cells
        A pair.
    shared
        Choose among the genes that the query's file has, too; else among all of the reference's.
    """
    import anndata
    import scanpy as sc

    names = cells.genes.astype(str)
    columns = np.flatnonzero(np.isin(names, cells.query_genes.astype(str))) if shared else np.arange(len(names))
    columns = columns[np.argsort(names[columns])]
    logged = log_expression(cells.counts, is_log=cells.is_log)[:, columns]
    enough = np.flatnonzero(logged.getnnz(axis=0) >= 3)
    if len(enough) > N_HVGS:
        adata = anndata.AnnData(logged[:, enough])
        adata.var_names = names[columns[enough]]
        sc.pp.highly_variable_genes(adata, n_top_genes=N_HVGS, flavor="seurat")
        enough = enough[adata.var["highly_variable"].to_numpy()]
    dense = np.asarray(logged[:, enough].toarray(), dtype=np.float32)
    return Reference(cells.genes[columns[enough]], dense, dense.mean(axis=0), dense.std(axis=0) + 1e-8, cells.is_log)


def log_expression(counts: sp.csr_matrix, *, is_log: bool) -> sp.csr_matrix:
    """Return log1p of counts per ten thousand over all genes of the file; log values pass through."""
    if is_log:
        return counts
    logged = counts.copy()
    totals = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1e-8)
    logged.data = np.log1p(logged.data * np.repeat((1e4 / totals).astype(np.float32), np.diff(logged.indptr)))
    return logged


def learn_logistic(reference: Reference, labels: NDArray[np.object_], seed: int) -> Ask:
    """Fit multinomial logistic regression, C = 1."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1.0, max_iter=100, random_state=seed)
    model.fit(reference.scale(reference.logged), labels.astype(str))
    return lambda logged: _best(model.classes_, model.predict_proba(reference.scale(logged)))


def learn_nearest(reference: Reference, labels: NDArray[np.object_], seed: int) -> Ask:
    """Let the 15 nearest reference cells vote (cosine, 30 PCs)."""
    from sklearn.decomposition import PCA
    from sklearn.neighbors import KNeighborsClassifier

    scaled = reference.scale(reference.logged)
    pca = PCA(min(N_PCS, min(scaled.shape) - 1), random_state=seed).fit(scaled)
    model = KNeighborsClassifier(min(N_NEIGHBORS, len(scaled)), metric="cosine")
    model.fit(pca.transform(scaled), labels.astype(str))
    return lambda logged: _best(model.classes_, model.predict_proba(pca.transform(reference.scale(logged))))


def learn_ingest(reference: Reference, labels: NDArray[np.object_], seed: int) -> Ask:
    """Run scanpy's PCA and neighbours with their defaults, for `ingest` to map labels; it gives no confidence (NaN)."""
    import pandas as pd
    import scanpy as sc

    known = _adata(reference.logged, reference.genes)
    known.obs["label"] = pd.Categorical(labels.astype(str))
    sc.pp.pca(known, random_state=seed)
    sc.pp.neighbors(known, random_state=seed)

    def ask(logged: NDArray[np.float32]) -> NDArray[np.object_]:
        query = _adata(logged, reference.genes)
        # The UMAP has no say in the labels.
        sc.tl.ingest(query, known, obs="label", embedding_method="pca", random_state=seed)
        types = query.obs["label"].to_numpy().astype(object)
        return np.stack([types, np.full(len(types), np.nan, dtype=object)])

    return ask


def _adata(logged: NDArray[np.float32], genes: NDArray[np.object_]) -> Any:  # noqa: ANN401 - an AnnData, untyped
    import anndata
    import pandas as pd

    adata = anndata.AnnData(logged.copy(), obs=pd.DataFrame(index=[f"c{i}" for i in range(len(logged))]))
    adata.var_names = genes.astype(str)
    return adata


def _best(classes: NDArray[Any], posterior: NDArray[np.float64]) -> NDArray[np.object_]:
    types = np.asarray(classes)[posterior.argmax(axis=1)].astype(object)
    return np.stack([types, posterior.max(axis=1).astype(object)])
