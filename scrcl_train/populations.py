"""Find the cell populations by a consensus over several views of the cells, and their centroids in the student's.

Each run over-clusters one view by k-means and merges the small clusters by average linkage of their centroids: k-means
alone splits a large homogeneous type sooner than it separates two small ones. Runs differ in view, start and number of
small clusters; how often two cells come out together, over all runs and levels of merging, is what the populations are
read from. One run's luck then decides little.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scrcl_infer.contract import Centroids
from scrcl_infer.errors import TrainingError
from scrcl_train.distil import reduce_embedding

VIEW_PCS = (15, 20, 30, 40, 50)
"""Leading principal components that make a view each."""
MIN_RUNS, RUNS_PER_VIEW = 15, 3
SMALL_CLUSTERS = (40, 150)
"""Small clusters of a run, drawn from this range; fewer where there are few cells."""
BASE_CLUSTERS = 300
"""Groups of nearly alike cells that are told apart or not: co-association is counted between these, not cells."""
CELLS_PER_BASE = 3
LEVELS = (6, 8, 11, 15, 20, 27, 36)
"""Numbers of clusters that each run is merged to."""
AUTO_RANGE = (2, 40)
"""Numbers of populations that are chosen among when none is asked for."""
RADIUS_QUANTILE = 0.95


@dataclass(frozen=True)
class Populations:
    """The populations of the training cells."""

    labels: NDArray[np.int64]
    """(n,) in [0, n_populations), numbered by decreasing size."""
    n_populations: int
    chosen: bool
    """Whether the number was chosen here."""


def find_populations(
    views: NDArray[np.float32] | Sequence[NDArray[np.float32]], *, n_populations: int | None = None, seed: int = 0
) -> Populations:
    """Group cells into populations; the same seed gives the same groups.

    Parameters
    ----------
    views
        One embedding (n, D) or several of the same cells, of any widths and scales; the first is the one in which
        cells count as nearly alike. `make_views` makes them from a teacher.
    n_populations
        K; None chooses it by the largest relative gap between the heights of successive merges.

    Raises
    ------
    TrainingError
        K is below 1 or above the number of cells that differ, or a view is not finite.
    """
    views = [views] if isinstance(views, np.ndarray) else list(views)
    if not all(np.isfinite(view).all() for view in views):
        msg = "The embedding holds values that are not finite; train the teacher again with a lower learning rate."
        raise TrainingError(msg)
    n_cells = len(views[0])
    if n_populations is not None and not 1 <= n_populations <= n_cells:
        msg = f"{n_populations} populations were asked for; with {n_cells} cells there must be 1 to {n_cells}."
        raise TrainingError(msg)
    rng = np.random.default_rng(seed)
    wanted = max(n_populations or 2, min(BASE_CLUSTERS, n_cells // CELLS_PER_BASE))
    base, centres = _overcluster(views[0], min(wanted, n_cells), rng)
    if n_populations is not None and len(centres) < n_populations:
        msg = f"{n_populations} populations were asked for, but only {len(centres)} cells differ; ask for fewer."
        raise TrainingError(msg)
    if len(centres) == 1:
        return order_by_size(base, chosen=n_populations is None)
    tree = _consensus_tree(base, views, rng)
    labels = _cut(tree, n_populations or _largest_gap(tree[:, 2]))
    return order_by_size(labels[base], chosen=n_populations is None)


def make_views(
    pcs: NDArray[np.float32], cell_graph: sp.csr_matrix, embeddings: Sequence[NDArray[np.float32]]
) -> list[NDArray[np.float32]]:
    """Make the views that populations are sought in.

    Parameters
    ----------
    pcs
        (n, p) principal components of the scaled expression.
    cell_graph
        (n, n) 0/1, without loops: each cell is averaged with its neighbours once.
    embeddings
        Of the teacher, (n, h) each.

    Returns
    -------
    list
        Of the first 50, 40, 30, 20 and 15 components: averaged over the graph, as they are, and at unit length; then
        the leading components of all embeddings together and of each.
    """
    loops = (cell_graph + sp.eye_array(cell_graph.shape[0], format="csr")).tocsr()
    mean = sp.diags_array(1 / np.asarray(loops.sum(axis=1)).reshape(-1)) @ loops
    widths = sorted({min(width, pcs.shape[1]) for width in VIEW_PCS}, reverse=True)
    plain = [np.ascontiguousarray(pcs[:, :width]) for width in widths]
    averaged = [np.asarray(mean @ view, dtype=np.float32) for view in plain]
    unit = [_unit(view).astype(np.float32) for view in plain]
    learned = [np.concatenate(embeddings, axis=1), *embeddings] if embeddings else []
    return averaged + plain + unit + [reduce_embedding(view, VIEW_PCS[-1]) for view in learned]


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
    view: NDArray[np.float32], n_clusters: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """K-means labels (n,) without gaps and centres (M, D), M = n_clusters unless fewer cells differ."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # Said of data with fewer distinct cells than clusters, which the caller sees from M.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = KMeans(n_clusters, n_init=1, random_state=int(rng.integers(2**31))).fit(view)
    used, labels = np.unique(fitted.labels_, return_inverse=True)
    return labels.astype(np.int64), fitted.cluster_centers_[used].astype(np.float64)


def _consensus_tree(
    base: NDArray[np.int64], views: Sequence[NDArray[np.float32]], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Average linkage (M - 1, 4) of the M base clusters on 1 - the share of clusterings that put them together."""
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    n_base, n_cells = int(base.max()) + 1, base.size
    sizes = np.bincount(base)
    together = np.zeros((n_base, n_base))
    n_clusterings = 0
    high = max(2, min(SMALL_CLUSTERS[1], n_cells // CELLS_PER_BASE))
    low = min(SMALL_CLUSTERS[0], max(2, high // 2))
    for run in range(max(MIN_RUNS, RUNS_PER_VIEW * len(views))):
        small, centres = _overcluster(views[run % len(views)], int(rng.integers(low, high + 1)), rng)
        if len(centres) < 2:
            continue
        tree = _centroid_tree(centres)
        member = sp.csr_matrix((1 / sizes[base], (base, small)), (n_base, len(centres)))  # shares of each base cluster
        for level in {min(level, len(centres)) for level in LEVELS}:
            onto = _cut(tree, level)
            merged = np.asarray((member @ sp.csr_matrix(np.eye(level)[onto])).todense())  # (M, level)
            together += merged @ merged.T
            n_clusterings += 1
    distance = np.clip(1 - together / max(n_clusterings, 1), 0.0, None)
    np.fill_diagonal(distance, 0.0)
    consensus: NDArray[np.float64] = linkage(squareform(distance, checks=False), "average")
    return consensus


def _centroid_tree(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average linkage of centres (M, D) on cosine distance."""
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import pdist

    # cosine distance = half the squared Euclidean distance of unit rows; defined for a centre at the origin as well
    tree: NDArray[np.float64] = linkage(pdist(_unit(centres), "sqeuclidean") / 2, "average")
    return tree


def _cut(tree: NDArray[np.float64], n_groups: int) -> NDArray[np.int64]:
    """Group of each leaf, with exactly n_groups groups even where merges tie in height."""
    from scipy.cluster.hierarchy import cut_tree

    labels: NDArray[np.int64] = cut_tree(tree, n_clusters=[n_groups])[:, 0].astype(np.int64)
    return labels


def _largest_gap(heights: NDArray[np.float64]) -> int:
    """Choose the number of groups whose next merge is highest, relative to the merge before it."""
    # top[k - 2] joins k groups into k - 1: staying at k is good where that merge is costly and the one before was not.
    low, high = AUTO_RANGE
    high = min(high, heights.size)
    if high < low:
        return heights.size + 1
    top = heights[::-1]
    ratio = top[low - 2 : high - 1] / np.maximum(top[low - 1 : high], 1e-3)
    return low + int(np.argmax(ratio))


def _unit(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    wide = rows.astype(np.float64)
    unit: NDArray[np.float64] = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return unit
