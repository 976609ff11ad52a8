"""A tree of small groups of cells, by a consensus over many clusterings of several views.

Each run over-clusters one view by k-means and merges the small clusters by average linkage of their centroids: k-means
alone splits a large homogeneous type sooner than it separates two small ones. Runs differ in view, start and number of
small clusters; how often two cells come out together, over all runs and all levels of merging, is their similarity in
the tree. One run's luck then decides little, and no number of populations has to be known.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scrcl_train.components import Components, Neighbors
from scrcl_train.graphs import nearest_neighbors

N_RUNS = 20
SMALL_CLUSTERS = (40, 150)
"""Small clusters of a run, drawn from this range (its end excluded); at most a quarter of the cells."""
LEVELS = range(4, 40)
"""Numbers of clusters that each run is merged to."""
BASE_CLUSTERS = 300
"""Groups of nearly alike cells that stay together: co-association is counted between these, not cells."""
CELLS_PER_BASE = 3
APART = 0.8
"""Groups that fewer than a fifth of the clusterings put together are populations of their own."""
SMALLEST_APART = 0.005
"""Share of the cells that both groups must have to count: the tree sets a few strange cells apart first."""
FEWEST_APART = 5
"""Cells that both must have, where that is more."""
MAX_FITTED = 20_000
"""Cells that k-means is fitted on where there are more; the others go to the nearest centre."""
N_NEIGHBORS = 15
"""Nearest cells of each cell, where no features bring them along."""


@dataclass(frozen=True)
class Views:
    """What populations are sought in: several descriptions of the same n cells."""

    clustered: tuple[NDArray[np.floating], ...]
    """(n, D) each, of any widths and scales; the runs take them in turn."""
    alike: NDArray[np.floating]
    """(n, D) in which cells count as nearly alike."""
    scores: NDArray[np.floating]
    """(n, D) that places a cell whose neighbours do not."""
    neighbors: NDArray[np.int64]
    """(n, k) nearest other cells of each, which vote on its population."""
    learned: NDArray[np.floating] | None = None
    """(n, D) of the teacher, in which the borders between populations are drawn; None leaves that out."""


@dataclass(frozen=True)
class ConsensusTree:
    """The tree, with M leaves."""

    base: NDArray[np.int64]
    """(n,) leaf of each cell."""
    merges: NDArray[np.float64]
    """(M - 1, 4) linkage as scipy writes it; heights are shares of the clusterings that keep two groups apart."""

    @property
    def n_leaves(self) -> int:
        """Leaves M."""
        return len(self.merges) + 1

    def cut(self, n_groups: int) -> NDArray[np.int64]:
        """Return the group (n,) of each cell, with exactly n_groups groups, at most M."""
        return cut_levels(self.merges, [n_groups])[0][self.base]

    def estimate_number(self) -> int:
        """Return the number of populations: one more than the merges of groups of some size that mostly stay apart."""
        sizes = np.zeros(len(self.merges) + self.n_leaves)
        sizes[: self.n_leaves] = np.bincount(self.base, minlength=self.n_leaves)
        pairs = self.merges[:, :2].astype(np.int64)
        for merge, pair in enumerate(pairs, start=self.n_leaves):
            sizes[merge] = sizes[pair].sum()
        smaller = sizes[pairs].min(axis=1) if len(pairs) else np.empty(0)
        apart = (self.merges[:, 2] >= APART) & (smaller >= max(SMALLEST_APART * len(self.base), FEWEST_APART))
        return min(max(2, int(apart.sum()) + 1), self.n_leaves)


def make_views(components: Components, neighbors: Neighbors, learned: NDArray[np.floating]) -> Views:
    """Describe cells by shrunk components, as they are and averaged with their neighbours.

    Parameters
    ----------
    components, neighbors
        Of the n cells.
    learned
        (n, D) the teacher's [Z₁, Z₂].
    """
    shrunk, refined = components.shrunk, components.refined
    averaged = average_neighbors(shrunk, neighbors.refined), average_neighbors(refined, neighbors.refined)
    alike = average_neighbors(components.scores, neighbors.plain)
    return Views((shrunk, refined, *averaged), alike, shrunk, neighbors.plain, learned)


def make_embedding_views(embedding: NDArray[np.floating]) -> Views:
    """Describe cells by one embedding (n, D) alone."""
    unit = unit_rows(embedding)
    return Views((unit,), unit, unit, nearest_neighbors(embedding, n_neighbors=N_NEIGHBORS, cosine=True))


def average_neighbors(values: NDArray[np.floating], neighbors: NDArray[np.int64]) -> NDArray[np.floating]:
    """Return the mean (n, D) of each cell's values (n, D) and its neighbours' (n, k)."""
    n_cells, n_neighbors = neighbors.shape
    columns = np.concatenate([np.arange(n_cells)[:, None], neighbors], axis=1).ravel()
    starts = np.arange(n_cells + 1) * (n_neighbors + 1)
    weights = np.full(columns.size, 1 / (n_neighbors + 1), dtype=values.dtype)
    averaged: NDArray[np.floating] = sp.csr_matrix((weights, columns, starts), (n_cells, n_cells)) @ values
    return averaged


def unit_rows(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """Scale rows to unit length; rows of zeros stay."""
    wide = rows.astype(np.float64)
    unit: NDArray[np.float64] = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12)
    return unit


def build_tree(views: Views, *, min_leaves: int = 2, seed: int = 0) -> ConsensusTree:
    """Grow the consensus tree; the same seed gives the same tree.

    Parameters
    ----------
    views
        From `make_views` or `make_embedding_views`.
    min_leaves
        M is at least this, unless fewer cells differ.
    """
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import squareform

    rng = np.random.default_rng(seed)
    n_cells = len(views.alike)
    n_leaves = min(max(min_leaves, min(BASE_CLUSTERS, n_cells // CELLS_PER_BASE)), n_cells)
    base, _ = _overcluster(views.alike, n_leaves, rng)
    sizes = np.bincount(base)
    if len(sizes) == 1:
        return ConsensusTree(base, np.empty((0, 4)))
    together = np.zeros((len(sizes), len(sizes)))
    n_clusterings = 0
    for run in range(N_RUNS):
        n_small = max(2, min(int(rng.integers(*SMALL_CLUSTERS)), n_cells // 4))
        small, centres = _overcluster(views.clustered[run % len(views.clustered)], min(n_small, n_cells), rng)
        if len(centres) < 2:
            continue
        # shares of each base cluster in the small ones (M, m), and whether these merge: products add up over levels
        member = sp.csr_matrix((1 / sizes[base], (base, small)), (len(sizes), len(centres))).toarray()
        for onto in cut_levels(_centroid_tree(centres), [min(level, len(centres)) for level in LEVELS]):
            merged = member @ np.eye(int(onto.max()) + 1)[onto]
            together += merged @ merged.T
            n_clusterings += 1
    distance = np.clip(1 - together / max(n_clusterings, 1), 0.0, None)
    np.fill_diagonal(distance, 0.0)
    return ConsensusTree(base, linkage(squareform(distance, checks=False), "average"))


def cut_levels(merges: NDArray[np.float64], levels: list[int]) -> list[NDArray[np.int64]]:
    """Cut a linkage (M - 1, 4) into exactly so many groups, even where merges tie: (M,) for each of the levels."""
    n_leaves = len(merges) + 1
    found = []
    for level in levels:
        parent = np.arange(2 * n_leaves - 1)
        done = n_leaves - level
        parent[merges[:done, :2].astype(np.int64)] = n_leaves + np.arange(done)[:, None]
        root = parent[:n_leaves]
        while not np.array_equal(parent[root], root):
            root = parent[root]
        found.append(np.unique(root, return_inverse=True)[1].astype(np.int64))
    return found


def _overcluster(
    view: NDArray[np.floating], n_clusters: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """K-means labels (n,) without gaps and centres (m, D), m = n_clusters unless fewer cells differ."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    means = KMeans(n_clusters, n_init=1, random_state=int(rng.integers(2**31)))
    with warnings.catch_warnings():
        # Said of data with fewer distinct cells than clusters, which the caller sees from m.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if len(view) > MAX_FITTED:
            found = means.fit(view[rng.permutation(len(view))[:MAX_FITTED]]).predict(view)
        else:
            found = means.fit(view).labels_
    used, labels = np.unique(found, return_inverse=True)
    return labels.astype(np.int64), means.cluster_centers_[used].astype(np.float64)


def _centroid_tree(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average linkage of centres (m, D) on cosine distance."""
    from scipy.cluster.hierarchy import linkage
    from scipy.spatial.distance import pdist

    # cosine distance = half the squared Euclidean distance of unit rows; defined for a centre at the origin as well
    tree: NDArray[np.float64] = linkage(pdist(unit_rows(centres), "sqeuclidean") / 2, "average")
    return tree
