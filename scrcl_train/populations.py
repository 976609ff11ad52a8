"""Find the cell populations in an embedding, and their centroids in the student's.

Over-cluster by k-means, then merge the small clusters by average linkage of their centroids: k-means alone splits a
large homogeneous type sooner than it separates two small ones (measured; see `docs/decisions`).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scrcl_infer.contract import Centroids
from scrcl_infer.errors import TrainingError

OVERCLUSTERS = 100
"""Small clusters to start from, in data of 2,000 cells and more."""
CELLS_PER_OVERCLUSTER = 20
"""In smaller data there are fewer of them, so that each still holds this many cells on average."""
MAX_AUTO = 40
"""Largest number of populations that is chosen without being asked for."""
RADIUS_QUANTILE = 0.95


@dataclass(frozen=True)
class Populations:
    """The populations of the training cells."""

    labels: NDArray[np.int64]
    """(n,) in [0, n_populations), numbered by decreasing size."""
    n_populations: int
    chosen: bool
    """Whether the number was chosen here."""


def find_populations(embedding: NDArray[np.float32], *, n_populations: int | None = None, seed: int = 0) -> Populations:
    """Group cells into populations; the same seed gives the same groups.

    Parameters
    ----------
    embedding
        (n, D) any scale; distances between cells are Euclidean, between groups cosine.
    n_populations
        K; None chooses it by the largest relative gap between the heights of successive merges.

    Raises
    ------
    TrainingError
        K is below 1 or above the number of cells that differ, or the embedding is not finite.
    """
    if not np.isfinite(embedding).all():
        msg = "The embedding holds values that are not finite; train the teacher again with a lower learning rate."
        raise TrainingError(msg)
    n_cells = len(embedding)
    if n_populations is not None and not 1 <= n_populations <= n_cells:
        msg = f"{n_populations} populations were asked for; with {n_cells} cells there must be 1 to {n_cells}."
        raise TrainingError(msg)
    wanted = max(n_populations or 2, min(OVERCLUSTERS, n_cells // CELLS_PER_OVERCLUSTER))
    small, centres = _overcluster(embedding, min(wanted, n_cells), seed)
    if n_populations is not None and len(centres) < n_populations:
        msg = f"{n_populations} populations were asked for, but only {len(centres)} cells differ; ask for fewer."
        raise TrainingError(msg)
    merged = _merge(centres, n_populations)
    return order_by_size(merged[small], chosen=n_populations is None)


def order_by_size(labels: NDArray[np.int64], *, chosen: bool = False) -> Populations:
    """Renumber groups by decreasing size; of equal ones the one with the earliest cell comes first."""
    _, first, codes, sizes = np.unique(labels, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    return Populations(rank[codes].astype(np.int64), int(order.size), chosen)


def fit_centroids(embedding: NDArray[np.float32], labels: NDArray[np.int64], n_populations: int) -> Centroids:
    """Compute each population's mean direction and the cosine distance that holds 95 % of its cells.

    Parameters
    ----------
    embedding
        (n, D) unit rows, of the student.
    labels
        (n,) in [0, n_populations).

    Raises
    ------
    TrainingError
        A population has no cell.
    """
    sizes = np.bincount(labels, minlength=n_populations)
    if not sizes.all():
        msg = f"Populations {np.flatnonzero(sizes == 0).tolist()} have no cell; ask for fewer populations."
        raise TrainingError(msg)
    member = sp.csr_matrix((np.ones(labels.size), (labels, np.arange(labels.size))), (n_populations, labels.size))
    sums = member @ embedding.astype(np.float64)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    centroids = sums / np.maximum(lengths, 1e-12)
    distance = 1 - np.einsum("nd,nd->n", embedding.astype(np.float64), centroids[labels])
    radii = [np.quantile(distance[labels == k], RADIUS_QUANTILE) for k in range(n_populations)]
    return Centroids(centroids.astype(np.float32), np.maximum(radii, 0.0).astype(np.float32))


def _overcluster(
    embedding: NDArray[np.float32], n_clusters: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """K-means labels (n,) without gaps and centres (M, D), M = n_clusters unless fewer cells differ."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # Said of data with fewer distinct cells than clusters, which the caller sees from M.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KMeans(n_clusters, n_init=3, random_state=seed).fit(embedding.astype(np.float64))
    used, labels = np.unique(fitted.labels_, return_inverse=True)
    return labels.astype(np.int64), fitted.cluster_centers_[used]


def _merge(centres: NDArray[np.float64], n_groups: int | None) -> NDArray[np.int64]:
    """Group of each centre (M,), by average linkage on cosine distance."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    if len(centres) == 1:
        return np.zeros(1, dtype=np.int64)
    unit = centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    # cosine distance = half the squared Euclidean distance of unit rows; defined for a centre at the origin as well
    tree = linkage(pdist(unit, "sqeuclidean") / 2, "average")
    groups = n_groups or _largest_gap(tree[:, 2])
    labels: NDArray[np.int64] = fcluster(tree, groups, "maxclust").astype(np.int64)
    return labels


def _largest_gap(heights: NDArray[np.float64]) -> int:
    """Choose the number of groups whose next merge is highest, relative to the merge before it."""
    # heights[-k] joins k + 1 groups into k; staying at k + 1 is good where that merge is costly.
    most = min(MAX_AUTO, heights.size)
    if most < 2:
        return most + 1
    top = heights[::-1]
    ratio = top[: most - 1] / np.maximum(top[1:most], 1e-12)
    return int(np.argmax(ratio)) + 2
