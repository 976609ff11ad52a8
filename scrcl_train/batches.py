"""Bring the cells of several batches together, so that the cell graph joins them by type and not by batch.

Two cells of two batches that are among each other's nearest are taken for the same type, and what separates them for
the batch (mutual nearest neighbours, Haghverdi et al. 2018). Every cell is moved by what separates the pairs next to
it, to where the batches meet; a type that one batch alone has forms no pairs and moves along with its neighbours.
Graph, input and components are then made from the moved cells. See `docs/decisions/0009-batches.md`.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scrcl_train.components import Components, compute_support

# One definition of the input and the neighbours, with and without batches.
from scrcl_train.features import Features, _neighbors, _refine
from scrcl_train.graphs import join_neighbors

if TYPE_CHECKING:
    from scrcl_train.config import GraphConfig

MIN_CELLS = 30
"""A smaller batch is left where it is: half of it would be the nearest of any cell."""
N_PAIRED = 15
"""Nearest cells in the other batch among which a pair must find each other."""
N_ANCHORS = 30
"""Nearest paired cells of its own batch whose mean moves a cell: one pair's difference is mostly noise."""
ROUNDS = 2
"""Times that pairs are sought and cells moved; pairs are better once the batches have met."""
MAX_SEARCHED = 5_000
"""Cells of each batch that pairs are sought among; drawn where there are more, so that time grows linearly."""


def mix_batches(features: Features, batch: NDArray[np.generic], graph: GraphConfig, *, seed: int = 0) -> Features:
    """Return the features with the batches brought together; the very same where there is nothing to do.

    Parameters
    ----------
    features
        From `prepare_features`. Without components (paper presets), or of spots, they are left as they are.
    batch
        (n,) batch of each cell; labels of types are not needed.
    graph
        Of the run.
    seed
        Of the draw of cells from large batches and of the approximate neighbour search.

    Returns
    -------
    Features
        New components, orthogonal again and ordered by variance, with the level of noise that was found before; new
        input, cell graph, gene graph and neighbours. Genes and moments stay.
    """
    rows = _large_batches(batch)
    if features.components is None or features.neighbors is None or len(rows) < 2:
        return features
    moved = move_cells(features.components, rows, seed=seed)
    components = _turn(moved, features.components)
    inputs, genes = _refine(components, graph)
    neighbors = _neighbors(components, graph, seed=seed)
    return replace(
        features,
        inputs=inputs,
        cell_graph=join_neighbors(neighbors.refined),
        gene_graph=genes,
        components=components,
        neighbors=neighbors,
    )


def describe_batches(features: Features, batch: NDArray[np.generic]) -> str:
    """Return a sentence on what `mix_batches` does with these batches; arguments as there."""
    sizes = np.unique(batch, return_counts=True)[1]
    if features.components is None or features.neighbors is None:
        return "Batches: used for the choice of genes only; this preset's graph does not depend on them."
    if len(sizes) == 1:
        return "Batches: all cells are of one; nothing to bring together."
    small = int((sizes < MIN_CELLS).sum())
    if len(sizes) - small < 2:
        return f"Batches: {len(sizes)}, fewer than two of at least {MIN_CELLS} cells; left as they are."
    left = f"; {small} with fewer than {MIN_CELLS} cells left as they are" if small else ""
    return f"Batches: {len(sizes) - small} brought together{left}."


def move_cells(components: Components, rows: list[NDArray[np.int64]], *, seed: int = 0) -> NDArray[np.float64]:
    r"""Move the cells of each batch to where the batches meet.

    .. math:: x_i ← x_i + Σ_B (n_B / n) \, mean_{a ∈ N(i)} \, mean_{b: (a, b) paired} (x_b - x_a)

    N(i) are the nearest cells of the own batch that have a pair in B. A large batch moves little, a small one far.

    Parameters
    ----------
    components
        Of the n cells.
    rows
        Cells of each batch; those of none stay.
    seed
        Of the draw from large batches.

    Returns
    -------
    ndarray
        (n, p) moved scores, float64.
    """
    rng = np.random.default_rng(seed)
    drawn = [own if len(own) <= MAX_SEARCHED else np.sort(rng.permutation(own)[:MAX_SEARCHED]) for own in rows]
    moved = components.scores.astype(np.float64)
    n_cells = sum(len(own) for own in rows)
    for _ in range(ROUNDS):
        refined = moved * np.sqrt(components.support)
        unit = (refined / np.maximum(np.linalg.norm(refined, axis=1, keepdims=True), 1e-12)).astype(np.float32)
        shift = np.zeros_like(moved)
        for first, second in combinations(range(len(rows)), 2):
            pairs = find_pairs(unit[drawn[first]], unit[drawn[second]])
            for here, there, links in ((first, second, pairs), (second, first, sp.csr_matrix(pairs.T))):
                paired = np.flatnonzero(np.diff(links.indptr))
                if not len(paired):
                    continue
                anchors = drawn[here][paired]
                apart = _average(links[paired], moved[drawn[there]]) - moved[anchors]
                near = _nearest(unit[rows[here]], unit[anchors], N_ANCHORS)
                shift[rows[here]] += len(rows[there]) / n_cells * _average(near, apart)
        moved = moved + shift
    return moved


def find_pairs(first: NDArray[np.float32], second: NDArray[np.float32]) -> sp.csr_matrix:
    """Pair the cells of two batches that are among each other's nearest `N_PAIRED`.

    Parameters
    ----------
    first, second
        (m, p) and (l, p) unit rows.

    Returns
    -------
    csr_matrix
        (m, l) float64, 1 for each pair.
    """
    return sp.csr_matrix(_nearest(first, second, N_PAIRED).multiply(_nearest(second, first, N_PAIRED).T))


def _large_batches(batch: NDArray[np.generic]) -> list[NDArray[np.int64]]:
    codes = np.unique(batch, return_inverse=True)[1]
    rows = [np.flatnonzero(codes == code).astype(np.int64) for code in range(int(codes.max()) + 1)]
    return [own for own in rows if len(own) >= MIN_CELLS]


def _turn(moved: NDArray[np.float64], before: Components) -> Components:
    """Principal components of the moved scores; the noise is that from before.

    Where the batches met, the means that moved the cells took some noise with them: measured anew it would be too low.
    """
    centred = moved - moved.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    vectors = vectors[:, ::-1]
    loadings = before.loadings.astype(np.float64) @ vectors
    signs = np.where(loadings[np.abs(loadings).argmax(axis=0), np.arange(loadings.shape[1])] < 0, -1.0, 1.0)
    scores = (centred @ (vectors * signs)).astype(np.float32)
    support = compute_support(scores, before.noise)
    return Components(scores, (loadings * signs).astype(np.float32), support, before.noise)


def _nearest(query: NDArray[np.float32], reference: NDArray[np.float32], n_nearest: int) -> sp.csr_matrix:
    """0/1 matrix (m, l) float64 of the nearest rows of the reference (l, p) for each query (m, p)."""
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=min(n_nearest, len(reference)), algorithm="brute").fit(reference)
    return sp.csr_matrix(index.kneighbors_graph(query), dtype=np.float64)


def _average(links: sp.csr_matrix, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean (m, p) of the linked rows of the values (l, p)."""
    means: NDArray[np.float64] = (links @ values) / np.asarray(links.sum(axis=1)).reshape(-1, 1)
    return means
