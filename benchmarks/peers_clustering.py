"""The simple methods that the default preset has to beat, as small functions (scanpy, scikit-learn, scipy).

All start alike: counts per ten thousand, log1p, 2,000 highly variable genes ('seurat' flavour), no gene left out before
that; 'scaled' means standardised per gene and clipped at 10; 50 principal components.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.datasets import Cells
from benchmarks.methods import Column, Method, NumberOfClusters, Outcome
from benchmarks.variable_genes import mark_variable

if TYPE_CHECKING:
    import anndata

N_HVGS = 2000
N_PCS = 50
MAX_VALUE = 10.0
N_NEIGHBORS = 15
N_GRAPH_PCS = 30
N_STARTS = 10
OVER = 6
OVER_STARTS = 2
RESOLUTIONS = (0.005, 20.0)
"""Range in which the resolution that gives the true K is looked for."""

PEER_PACKAGES = ("anndata", "igraph", "numpy", "scanpy", "scikit-learn", "scipy")


@dataclass(frozen=True)
class Graph:
    """An AnnData with scanpy's neighbours of its PCs."""

    adata: anndata.AnnData


def compute_pcs(cells: Cells, *, scaled: bool) -> NDArray[np.float32]:
    """Return (n, 50) float32 principal components of plain or scaled data."""
    import scanpy as sc

    adata = mark_variable(cells.counts, N_HVGS)
    adata = adata[:, adata.var["highly_variable"].to_numpy()].copy()
    if scaled:
        sc.pp.scale(adata, max_value=MAX_VALUE)
    sc.pp.pca(adata, n_comps=min(N_PCS, min(adata.shape) - 1), random_state=0)
    return np.asarray(adata.obsm["X_pca"], dtype=np.float32)


def compute_graph(representation: NDArray[np.float32]) -> Graph:
    """Return scanpy's 15-neighbour graph of a representation (n, d).

    `transformer='sklearn'` because scanpy 1.11 with pynndescent 0.7 fails above 8,192 cells; the neighbours are exact.
    """
    import anndata
    import scanpy as sc

    adata = anndata.AnnData(np.zeros((len(representation), 1), dtype=np.float32))
    adata.obsm["X_pca"] = representation
    sc.pp.neighbors(adata, n_neighbors=N_NEIGHBORS, use_rep="X_pca", transformer="sklearn", random_state=0)
    return Graph(adata)


def cluster_kmeans(
    values: NDArray[np.float32], n_clusters: int, seed: int, *, n_starts: int = N_STARTS
) -> NDArray[np.int64]:
    """Return (n,) k-means clusters, the best of ten starts."""
    from sklearn.cluster import KMeans

    return np.asarray(KMeans(n_clusters, n_init=n_starts, random_state=seed).fit_predict(values), dtype=np.int64)


def cluster_leiden(graph: Graph, resolution: float, seed: int) -> NDArray[np.int64]:
    """Return (n,) Leiden clusters (igraph, two iterations, as scanpy recommends)."""
    import scanpy as sc

    sc.tl.leiden(graph.adata, resolution=resolution, random_state=seed, flavor="igraph", n_iterations=2, directed=False)
    return np.asarray(graph.adata.obs["leiden"].cat.codes, dtype=np.int64)


def cluster_leiden_at(graph: Graph, n_clusters: int, seed: int, *, n_steps: int = 30) -> NDArray[np.int64]:
    """Return (n,) Leiden clusters at the resolution, found by bisection, that gives K clusters or comes nearest."""
    low, high = RESOLUTIONS
    best, best_gap = cluster_leiden(graph, 1.0, seed), n_clusters + 1
    middle = 1.0
    for _ in range(n_steps):
        found = cluster_leiden(graph, middle, seed)
        n_found = int(found.max()) + 1
        if abs(n_found - n_clusters) < best_gap:
            best, best_gap = found, abs(n_found - n_clusters)
        if n_found == n_clusters:
            break
        low, high = (middle, high) if n_found < n_clusters else (low, middle)
        middle = float(np.sqrt(low * high))
    return best


def average_neighbours(pcs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return PCs averaged once over the graph of the 15 nearest cells (cosine, first 30 PCs).

    The graph is made symmetric and holds each cell itself; its rows are normalised.
    """
    import scipy.sparse as sp
    from sklearn.neighbors import NearestNeighbors

    n, space = len(pcs), pcs[:, :N_GRAPH_PCS]
    search = NearestNeighbors(n_neighbors=N_NEIGHBORS + 1, metric="cosine").fit(space)
    near = search.kneighbors(space, return_distance=False)  # (n, 16), each cell among its own
    links = sp.csr_matrix((np.ones(near.size), (np.repeat(np.arange(n), near.shape[1]), near.ravel())), shape=(n, n))
    links = (links + links.T + sp.identity(n)).astype(bool).astype(np.float64)
    return np.asarray(sp.diags(1 / links.sum(axis=1).A1) @ links @ pcs, dtype=np.float32)


def cluster_and_merge(values: NDArray[np.float32], n_clusters: int, seed: int) -> NDArray[np.int64]:
    """Return (n,) clusters: k-means with 6 K, its centroids merged to K by average linkage on cosine distance."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from sklearn.cluster import KMeans

    n_small = min(OVER * n_clusters, len(values) // 2)
    fine = KMeans(n_small, n_init=OVER_STARTS, random_state=seed).fit(values)
    tree = linkage(fine.cluster_centers_, method="average", metric="cosine")
    merged = fcluster(tree, n_clusters, criterion="maxclust") - 1
    return np.asarray(merged[fine.labels_], dtype=np.int64)


def _pcs(*, scaled: bool) -> Callable[[Cells], NDArray[np.float32]]:
    return lambda cells: compute_pcs(cells, scaled=scaled)


def _graph(*, scaled: bool) -> Callable[[Cells], Graph]:
    return lambda cells: compute_graph(compute_pcs(cells, scaled=scaled))


def _method(
    name: str,
    title: str,
    prepare: Callable[[Cells], Any],
    cluster: Callable[[Any, Cells, int], NDArray[np.int64]],
    *,
    k: NumberOfClusters = "given",
    **settings: Any,  # noqa: ANN401 - constants for the cache key
) -> Method:
    columns = (Column(name, title, k),)
    shared = {"n_hvgs": N_HVGS, "n_pcs": N_PCS, "max_value": MAX_VALUE}
    return Method(
        name,
        columns,
        prepare,
        lambda prepared, cells, seed: Outcome({name: cluster(prepared, cells, seed)}),
        settings=shared | settings,
        packages=PEER_PACKAGES,
    )


def _peers(*, scaled: bool) -> tuple[Method, ...]:
    """k-means and both Leiden columns on plain or scaled data."""
    tail, words = ("-scaled", ", scaled") if scaled else ("", "")
    pcs, graph = _pcs(scaled=scaled), _graph(scaled=scaled)
    near: dict[str, Any] = {"n_neighbors": N_NEIGHBORS, "iterations": 2}
    return (
        _method(
            f"kmeans{tail}",
            f"PCA + k-means{words}",
            pcs,
            lambda p, cells, seed: cluster_kmeans(p, cells.n_types, seed),
            starts=N_STARTS,
        ),
        _method(
            f"leiden{tail}",
            f"PCA + Leiden, r = 1{words}",
            graph,
            lambda g, _, seed: cluster_leiden(g, 1.0, seed),
            k="estimated",
            **near,
        ),
        _method(
            f"leiden-k{tail}",
            f"PCA + Leiden at true K{words}",
            graph,
            lambda g, cells, seed: cluster_leiden_at(g, cells.n_types, seed),
            **near,
            resolutions=RESOLUTIONS,
        ),
    )


PEERS: tuple[Method, ...] = (
    *_peers(scaled=False),
    *_peers(scaled=True),
    _method(
        "averaged",
        "averaged once over 15-NN + k-means, scaled",
        lambda cells: average_neighbours(compute_pcs(cells, scaled=True)),
        lambda p, cells, seed: cluster_kmeans(p, cells.n_types, seed),
        starts=N_STARTS,
        n_neighbors=N_NEIGHBORS,
        n_graph_pcs=N_GRAPH_PCS,
    ),
    _method(
        "over-merge",
        "over-clustered 6 K and merged, scaled",
        _pcs(scaled=True),
        lambda p, cells, seed: cluster_and_merge(p, cells.n_types, seed),
        over=OVER,
        starts=OVER_STARTS,
    ),
)
