"""Cell, spot and gene graphs as scipy CSR matrices, and smoothing over them. No torch here.

Nearest neighbours are exact below a given number of cells and approximate (NN-descent, about n log n) from there on.
Nothing of size n x n is ever formed.
"""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scrcl_infer.errors import InputError
from scrcl_infer.spatial import Spots, make_spot_graph

logger = logging.getLogger(__name__)


def knn_graph(
    points: NDArray[np.floating], *, n_neighbors: int, cosine: bool, exact_below: int = 10_000, seed: int = 0
) -> sp.csr_matrix:
    """Join each point to its nearest others, in both directions.

    Parameters
    ----------
    points
        (n, p) coordinates.
    n_neighbors
        Others that each point is joined to, bounded by n - 1.
    cosine
        Compare by cosine, else by Euclidean distance.
    exact_below
        From this many points on neighbours are approximate.
    seed
        Of the approximate search.

    Returns
    -------
    csr_matrix
        (n, n) float32, symmetric, values 1, no loops.

    Raises
    ------
    InputError
        There are fewer than two points.
    """
    return join_neighbors(
        nearest_neighbors(points, n_neighbors=n_neighbors, cosine=cosine, exact_below=exact_below, seed=seed)
    )


def nearest_neighbors(
    points: NDArray[np.floating], *, n_neighbors: int, cosine: bool, exact_below: int = 10_000, seed: int = 0
) -> NDArray[np.int64]:
    """Return the nearest others (n, k) of each point; arguments and errors as in `knn_graph`."""
    n_points = len(points)
    if n_points < 2:
        msg = f"A graph needs at least two cells; found {n_points}. Give a file with more cells."
        raise InputError(msg)
    coordinates: NDArray[Any] = np.ascontiguousarray(points, dtype=np.float32 if cosine else np.float64)
    if cosine:
        # On unit rows the Euclidean order is the cosine order, and scikit-learn then works in small tiles.
        norms = np.linalg.norm(coordinates, axis=1, keepdims=True)
        coordinates = coordinates / np.maximum(norms, np.finfo(np.float32).tiny)
    n_neighbors = min(n_neighbors, n_points - 1)
    if n_points < exact_below:
        return _exact(coordinates, n_neighbors)
    return _approximate(coordinates, n_neighbors, seed)


def join_neighbors(neighbors: NDArray[np.int64]) -> sp.csr_matrix:
    """Join each point to its neighbours (n, k), in both directions; as `knn_graph`."""
    n_points, n_neighbors = neighbors.shape
    rows = np.repeat(np.arange(n_points), n_neighbors)
    directed = sp.csr_matrix((np.ones(rows.size, np.float32), (rows, neighbors.ravel())), shape=(n_points, n_points))
    graph = sp.csr_matrix(directed.maximum(directed.T))
    graph.sort_indices()
    return graph


def spot_graph(
    coordinates: NDArray[np.floating], *, n_neighbors: int, section: NDArray[np.generic] | None = None
) -> sp.csr_matrix:
    """Join each spot to its nearest spots of the same section, exactly as a spatial bundle does with a query's.

    Parameters
    ----------
    coordinates
        (n, 2) or (n, 3) places of the spots, in any unit.
    n_neighbors
        Nearest other spots of each spot.
    section
        (n,) name of each spot's section; None means that there is one.

    Returns
    -------
    csr_matrix
        (n, n) float32, symmetric, values 1, no loops, no edge between sections.

    Raises
    ------
    InputError
        `section` has another length.
    """
    n_spots = len(coordinates)
    sections = np.zeros(n_spots, dtype=np.int64) if section is None else np.asarray(section)
    if len(sections) != n_spots:
        msg = f"There are {n_spots} spots but {len(sections)} section names. Give one name per spot."
        raise InputError(msg)
    numbers = np.unique(sections, return_inverse=True)[1].astype(np.int64)
    return make_spot_graph(Spots(np.asarray(coordinates, dtype=np.float64), numbers), n_neighbors=n_neighbors)


def gene_graph(inputs: NDArray[np.float32] | sp.csr_matrix, *, n_neighbors: int) -> sp.csr_matrix:
    """Join each gene to its nearest genes by the Euclidean distance of their columns.

    Parameters
    ----------
    inputs
        (n, g) matrix that the views see.
    n_neighbors
        Nearest genes of each gene, itself included, bounded by g.

    Returns
    -------
    csr_matrix
        (g, g) float32, values 1; row i lists the neighbours of gene i, itself first among them.
    """
    products = gram(inputs)
    n_genes = len(products)
    n_neighbors = min(n_neighbors, n_genes)
    squares = np.diagonal(products).copy()
    columns = np.empty((n_genes, n_neighbors), dtype=np.int64)
    for gene in range(n_genes):
        distances = squares - 2 * products[gene]  # the gene's own square shifts all alike
        distances[gene] = -np.inf
        columns[gene] = np.argsort(distances, kind="stable")[:n_neighbors]
    rows = np.repeat(np.arange(n_genes), n_neighbors)
    graph = sp.csr_matrix((np.ones(rows.size, np.float32), (rows, columns.ravel())), shape=(n_genes, n_genes))
    graph.sort_indices()
    return graph


def gene_program_graph(profiles: NDArray[np.float32], *, n_neighbors: int) -> sp.csr_matrix:
    """Join each gene to the genes of nearly the same profile over the principal components, in both directions.

    Parameters
    ----------
    profiles
        (g, p) loadings times the components' standard deviations, so that the cosine of two rows is the correlation
        of the two genes once all but the leading components are taken for noise.
    n_neighbors
        Nearest genes of each gene, itself included.

    Returns
    -------
    csr_matrix
        (g, g) float32, symmetric, values 1, with loops.
    """
    others = max(1, n_neighbors - 1)
    return add_loops(knn_graph(profiles, n_neighbors=others, cosine=True, exact_below=len(profiles) + 1))


def gram(inputs: NDArray[np.float32] | sp.csr_matrix, *, block_rows: int = 4096) -> NDArray[np.float64]:
    """Return XᵀX (g, g) in float64, added up over blocks of rows of X (n, g)."""
    products = np.zeros((inputs.shape[1], inputs.shape[1]))
    for start in range(0, inputs.shape[0], block_rows):
        block = inputs[start : start + block_rows]
        dense = block.toarray() if sp.issparse(block) else block
        dense = np.asarray(dense, dtype=np.float64)
        products += dense.T @ dense
    return products


def add_loops(graph: sp.csr_matrix) -> sp.csr_matrix:
    """Return A + I for a graph A (n, n) without loops."""
    looped = sp.csr_matrix(graph + sp.identity(graph.shape[0], dtype=graph.dtype, format="csr"))
    looped.sort_indices()
    return looped


def gcn_normalise(graph: sp.csr_matrix) -> sp.csr_matrix:
    r"""Normalise messages by the degrees of both ends (Kipf and Welling 2017; PyTorch Geometric's `gcn_norm`).

    .. math:: Â = D^{-1/2} Ã^T D^{-1/2}, \qquad D_{jj} = \sum_i Ã_{ij}

    Parameters
    ----------
    graph
        (n, n) graph with loops; an entry (i, j) sends a message from i to j. The cell graph is symmetric, so that
        the transpose shows in the directed gene graph only.

    Returns
    -------
    csr_matrix
        (n, n) float64: row j gathers the messages to j.
    """
    received = np.asarray(graph.sum(axis=0), dtype=np.float64).ravel()
    scale = sp.diags_array(1.0 / np.sqrt(received))
    normalised = sp.csr_matrix(scale @ graph.T.astype(np.float64) @ scale)
    normalised.sort_indices()
    return normalised


def smooth(inputs: NDArray[np.floating], graph: sp.csr_matrix, *, steps: int) -> NDArray[np.floating]:
    r"""Average over the graph: :math:`X^{(s)} = Â^s X`.

    Parameters
    ----------
    inputs
        (n, g), dense.
    graph
        (n, n) symmetric 0/1 graph without loops.
    steps
        s; 0 returns the inputs as they are.

    Returns
    -------
    ndarray
        (n, g) of the inputs' type.
    """
    normalised = gcn_normalise(add_loops(graph)).astype(inputs.dtype)
    for _ in range(steps):
        inputs = normalised @ inputs
    return inputs


def _exact(points: NDArray[np.floating], n_neighbors: int) -> NDArray[np.int64]:
    """Return (n, n_neighbors) indices of the nearest others."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=n_neighbors, algorithm="kd_tree" if points.shape[1] <= 3 else "brute")
    # Without an argument scikit-learn leaves each point out of its own neighbours, duplicates or not.
    found: NDArray[np.int64] = search.fit(points).kneighbors(return_distance=False)
    return found


def _approximate(points: NDArray[np.floating], n_neighbors: int, seed: int) -> NDArray[np.int64]:
    """Return (n, n_neighbors) indices of nearly nearest others, the same for the same seed."""
    from pynndescent import NNDescent

    logger.info("searching approximate neighbours of %d cells", len(points))
    index = NNDescent(points.astype(np.float32), n_neighbors=n_neighbors + 1, random_state=seed, n_jobs=1)
    found = np.asarray(index.neighbor_graph[0], dtype=np.int64)
    own = found == np.arange(len(found))[:, None]
    # Drop the point itself; where duplicates pushed it out of its own list, drop the farthest.
    own[~own.any(axis=1), -1] = True
    kept: NDArray[np.int64] = found[~own].reshape(len(found), n_neighbors)
    return kept
