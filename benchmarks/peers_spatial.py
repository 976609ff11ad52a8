"""The simple methods for tissue sections: smoothed principal components, with three ways to cluster them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from benchmarks.datasets import Cells
from benchmarks.methods import Column, Method, NumberOfClusters, Outcome
from benchmarks.peers_clustering import (
    MAX_VALUE,
    N_STARTS,
    PEER_PACKAGES,
    cluster_kmeans,
    cluster_leiden,
    cluster_leiden_at,
    compute_graph,
)

MIN_CELLS = 3
N_SPOTS = 5
N_STEPS = 10
N_PCS = 20
MIXTURE_STARTS = 5
N_VOTERS = 50
"""Nearest spots, the spot itself not among them, whose majority replaces its label (the authors' refinement)."""


def spot_graph(places: NDArray[np.float64], n_neighbors: int) -> sp.csr_matrix:
    """Return the symmetric 0/1 graph (n, n) of the nearest spots, without loops."""
    from sklearn.neighbors import NearestNeighbors

    graph = NearestNeighbors(n_neighbors=n_neighbors).fit(places).kneighbors_graph()
    return sp.csr_matrix(((graph + graph.T) > 0).astype(np.float64))


def compute_smoothed_pcs(cells: Cells, *, n_steps: int = N_STEPS) -> NDArray[np.float32]:
    """Return (n, 20) float32 PCs of scaled log-normalised genes, smoothed over the graph of the 5 nearest spots.

    Raises
    ------
    ValueError
        The set holds no coordinates.
    """
    import anndata
    import scanpy as sc

    if cells.spatial is None:
        msg = f"{cells.name} has no obsm['spatial']; the spatial benchmark needs the places of the spots."
        raise ValueError(msg)
    adata = anndata.AnnData(cells.counts.copy())
    sc.pp.filter_genes(adata, min_cells=MIN_CELLS)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.scale(adata, max_value=MAX_VALUE)
    links = spot_graph(cells.spatial, N_SPOTS) + sp.identity(adata.n_obs)
    half = sp.diags(1 / np.sqrt(np.asarray(links.sum(axis=1)).ravel()))
    smooth = (half @ links @ half).tocsr()
    sc.pp.pca(adata, n_comps=min(N_PCS, min(adata.shape) - 1), random_state=0)
    values = np.asarray(adata.obsm["X_pca"], dtype=np.float64)
    for _ in range(n_steps):
        values = smooth @ values
    return values.astype(np.float32)


def cluster_mixture(values: NDArray[np.float32], n_clusters: int, seed: int) -> NDArray[np.int64]:
    """Return (n,) components of a Gaussian mixture with one covariance for all, the best of five starts."""
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(n_clusters, covariance_type="tied", n_init=MIXTURE_STARTS, random_state=seed)
    return np.asarray(mixture.fit_predict(values), dtype=np.int64)


def cluster_ward(values: NDArray[np.float32], n_clusters: int, seed: int) -> NDArray[np.int64]:
    """Return (n,) clusters by Ward's method; nothing in it is random."""
    from sklearn.cluster import AgglomerativeClustering

    del seed
    return np.asarray(AgglomerativeClustering(n_clusters).fit_predict(values), dtype=np.int64)


def vote(clusters: NDArray[np.int64], places: NDArray[np.float64], n_voters: int = N_VOTERS) -> NDArray[np.int64]:
    """Replace each spot's cluster by the majority of its nearest spots, as the authors do; ties go to the nearest."""
    from sklearn.neighbors import NearestNeighbors

    n_voters = min(n_voters, len(places) - 1)
    near = NearestNeighbors(n_neighbors=n_voters).fit(places).kneighbors(return_distance=False)
    codes, index = np.unique(clusters, return_inverse=True)
    votes = np.zeros((len(places), len(codes)))
    rows = np.arange(len(places))
    # Counted from the farthest to the nearest; the bonus of the nearest voter of a cluster only decides ties.
    bonus = np.zeros_like(votes)
    for j in reversed(range(n_voters)):
        voter = index[near[:, j]]
        votes[rows, voter] += 1
        bonus[rows, voter] = 1 - j / n_voters
    return np.asarray(codes[(votes + bonus / 2).argmax(axis=1)], dtype=np.int64)


def with_vote(found: dict[str, NDArray[np.int64]], cells: Cells) -> Outcome:
    """Return each clustering as it is and after the vote of the 50 nearest spots."""
    places = cells.spatial
    voted = {} if places is None else {f"{name}-voted": vote(labels, places) for name, labels in found.items()}
    return Outcome(found | voted)


def two_columns(
    name: str, title: str, *, k: NumberOfClusters = "given", is_ours: bool = False
) -> tuple[Column, Column]:
    """Return the columns of a method without and with the vote."""
    return Column(name, title, k, is_ours=is_ours), Column(f"{name}-voted", f"{title}, voted", k, is_ours=is_ours)


def _method(
    name: str, title: str, cluster: Callable[[NDArray[np.float32], int, int], NDArray[np.int64]], *, starts: int
) -> Method:
    return Method(
        name,
        two_columns(name, title),
        compute_smoothed_pcs,
        lambda pcs, cells, seed: with_vote({name: cluster(pcs, cells.n_types, seed)}, cells),
        settings={
            "spots": N_SPOTS,
            "steps": N_STEPS,
            "pcs": N_PCS,
            "starts": starts,
            "voters": N_VOTERS,
        },
        packages=PEER_PACKAGES,
    )


def _leiden() -> Method:
    def run(pcs: NDArray[np.float32], cells: Cells, seed: int) -> Outcome:
        graph = compute_graph(pcs)
        at_k = cluster_leiden_at(graph, cells.n_types, seed)
        return with_vote({"smoothed-leiden-k": at_k, "smoothed-leiden": cluster_leiden(graph, 1.0, seed)}, cells)

    columns = (
        *two_columns("smoothed-leiden-k", "smoothed PCA + Leiden at true K"),
        *two_columns("smoothed-leiden", "smoothed PCA + Leiden, r = 1", k="estimated"),
    )
    settings = {"spots": N_SPOTS, "steps": N_STEPS, "pcs": N_PCS, "voters": N_VOTERS}
    return Method("smoothed-leiden", columns, compute_smoothed_pcs, run, settings=settings, packages=PEER_PACKAGES)


PEERS: tuple[Method, ...] = (
    _method("smoothed-mixture", "smoothed PCA + Gaussian mixture", cluster_mixture, starts=MIXTURE_STARTS),
    _method("smoothed-kmeans", "smoothed PCA + k-means", cluster_kmeans, starts=N_STARTS),
    _method("smoothed-ward", "smoothed PCA + Ward", cluster_ward, starts=1),
    _leiden(),
)
