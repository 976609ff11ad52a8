"""Find the cell populations in a consensus tree, and their centroids in the student's embedding.

The tree is cut where there are as many groups of some size as asked for; cells of smaller groups go where their
neighbours are; then cells at the borders are settled by their neighbours, by the teacher's refined embedding, and by
their neighbours again. No step loses a population.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scrcl_infer.errors import TrainingError
from scrcl_infer.parts import Centroids
from scrcl_train.consensus import ConsensusTree, Views, average_neighbors, build_tree, make_embedding_views, unit_rows

SMALLEST = 0.07
"""Cells of the smallest population, as a share of the n / K that it would have if all were equal."""
FOLLOWED = 3
"""Rounds in which cells of smaller groups follow their neighbours, before they go to the most similar population."""
SHRINKAGE = 0.1
"""Of the covariance within populations, towards a sphere."""
BORDER_ROUNDS = 2
"""Rounds of drawing the borders anew."""
STARTS = 10
"""Of the paper's k-means, of which the best is kept."""
RADIUS_QUANTILE = 0.95


@dataclass(frozen=True)
class Populations:
    """The populations of the training cells."""

    labels: NDArray[np.int64]
    """(n,) in [0, n_populations), numbered by decreasing size."""
    n_populations: int
    chosen: bool
    """Whether the number was chosen here."""


def find_populations(views: Views, *, n_populations: int | None = None, seed: int = 0) -> Populations:
    """Group cells into populations by consensus; the same seed gives the same groups.

    Parameters
    ----------
    views
        From `scrcl_train.consensus.make_views` or `make_embedding_views`.
    n_populations
        K; None chooses it by the heights of the tree's merges.

    Raises
    ------
    TrainingError
        K is below 1 or above the number of cells that differ, or a view is not finite.
    """
    n_cells = len(views.alike)
    learned = () if views.learned is None else (views.learned,)
    _check(n_cells, n_populations, (*views.clustered, views.alike, views.scores, *learned))
    tree = build_tree(views, min_leaves=n_populations or 2, seed=seed)
    if n_populations is not None and tree.n_leaves < n_populations:
        msg = f"{n_populations} populations were asked for, but only {tree.n_leaves} cells differ; ask for fewer."
        raise TrainingError(msg)
    wanted = n_populations or tree.estimate_number()
    labels = settle(follow_neighbors(cut_with_guard(tree, wanted), wanted, views), views)
    return order_by_size(labels, chosen=n_populations is None)


def cluster_embedding(
    embedding: NDArray[np.float32], *, n_populations: int | None = None, seed: int = 0
) -> Populations:
    """Group cells as the paper does: k-means by cosine, best of ten starts.

    Parameters
    ----------
    embedding
        (n, D), the teacher's [Z₁, Z₂].
    n_populations
        K, which the paper takes as given; None estimates it, and the groups then come from the consensus.

    Raises
    ------
    TrainingError
        As `find_populations`.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    _check(len(embedding), n_populations, (embedding,))
    if n_populations is None:
        return find_populations(make_embedding_views(embedding), seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct cells than K: seen below
        labels = KMeans(n_populations, n_init=STARTS, random_state=seed).fit_predict(unit_rows(embedding))
    found = order_by_size(labels.astype(np.int64))
    if found.n_populations < n_populations:
        msg = f"{n_populations} populations were asked for, but only {found.n_populations} cells differ; ask for fewer."
        raise TrainingError(msg)
    return found


def cut_with_guard(tree: ConsensusTree, n_populations: int) -> NDArray[np.int64]:
    """Cut the tree where it first has K groups of at least `SMALLEST` n / K cells.

    Where no cut has, the bound is halved until one does.

    Returns
    -------
    ndarray
        (n,) group of each cell, K or more of them; the K largest are the populations.
    """
    bound = SMALLEST * len(tree.base) / n_populations
    while True:
        for level in range(n_populations, tree.n_leaves + 1):
            groups = tree.cut(level)
            if (np.bincount(groups) >= bound).sum() >= n_populations:
                return groups
        bound /= 2  # below one cell the first cut will do


def follow_neighbors(groups: NDArray[np.int64], n_populations: int, views: Views) -> NDArray[np.int64]:
    """Give cells outside the K largest groups (n,) to those where their neighbours are: (n,) in [0, K)."""
    largest = np.sort(np.argsort(-np.bincount(groups), kind="stable")[:n_populations])
    weights = (groups[:, None] == largest).astype(np.float64)  # (n, K)
    directions = unit_rows(np.stack([views.scores[groups == group].mean(axis=0) for group in largest]))
    for _ in range(FOLLOWED):
        undecided = ~weights.any(axis=1, keepdims=True)
        weights = np.where(undecided, average_neighbors(weights, views.neighbors), weights)
    undecided = ~weights.any(axis=1, keepdims=True)
    weights = np.where(undecided, unit_rows(views.scores) @ directions.T, weights)
    labels: NDArray[np.int64] = weights.argmax(axis=1).astype(np.int64)
    return labels


def settle(labels: NDArray[np.int64], views: Views) -> NDArray[np.int64]:
    """Settle cells at the borders of populations (n,): a vote, a discriminant in the learned embedding, a vote."""
    labels = vote(labels, views.neighbors)
    if views.learned is None or labels.max() == 0:
        return labels
    for _ in range(BORDER_ROUNDS):
        labels = redraw_borders(labels, views.learned)
    return vote(labels, views.neighbors)


def vote(labels: NDArray[np.int64], neighbors: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give each cell the commonest label (n,) among its neighbours (n, k) and itself; of equals the lowest."""
    shares = average_neighbors(np.eye(int(labels.max()) + 1)[labels], neighbors)
    return _keep_all(labels, shares.argmax(axis=1))


def redraw_borders(labels: NDArray[np.int64], embedding: NDArray[np.floating]) -> NDArray[np.int64]:
    """Give each cell to the likeliest of Gaussians with one covariance and the populations' sizes as priors."""
    # As `LinearDiscriminantAnalysis` of scikit-learn with solver 'lsqr', which takes no population of one cell.
    wide = embedding.astype(np.float64)
    sizes = np.bincount(labels)
    means = np.stack([wide[labels == k].mean(axis=0) for k in range(sizes.size)])  # (K, D)
    within = wide - means[labels]
    covariance = within.T @ within / len(wide)
    sphere = np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * sphere
    directions = np.linalg.lstsq(covariance, means.T, rcond=None)[0]  # (D, K)
    offsets = np.log(sizes / len(wide)) - 0.5 * np.einsum("kd,dk->k", means, directions)
    return _keep_all(labels, (wide @ directions + offsets).argmax(axis=1))


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


def _keep_all(before: NDArray[np.int64], after: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the new labels (n,), but leave populations that would vanish with the cells that they had."""
    kept = after.astype(np.int64)
    while (lost := np.setdiff1d(before, kept)).size:
        back = np.isin(before, lost)
        kept[back] = before[back]
    return kept


def _check(n_cells: int, n_populations: int | None, views: tuple[NDArray[np.floating], ...]) -> None:
    if not all(np.isfinite(view).all() for view in views):
        msg = "The embedding holds values that are not finite; train the teacher again with a lower learning rate."
        raise TrainingError(msg)
    if n_populations is not None and not 1 <= n_populations <= n_cells:
        msg = f"{n_populations} populations were asked for; with {n_cells} cells there must be 1 to {n_cells}."
        raise TrainingError(msg)
