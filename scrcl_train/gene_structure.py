"""The gene-gene structure of a bundle: neighbours, the teacher's gene embedding, and which genes drive a population."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scrcl_infer.parts import GeneGraph
from scrcl_train.student import Student
from scrcl_train.student_input import compute_rates, log_normalise, take_roots

N_NEIGHBORS = 5
"""Nearest genes of each gene, as many as in the teacher's gene graph (there the gene itself is among them)."""
MAX_CELLS = 20_000
"""Correlations are computed on this many cells, evenly spaced, where there are more: their error is below 0.01 then."""


def compute_gene_graph(
    counts: sp.csr_matrix,
    library_size: NDArray[np.float32],
    gene_embedding: NDArray[np.float32],
    cell_embedding: NDArray[np.float32],
    populations: NDArray[np.int64],
) -> GeneGraph:
    """Describe how the genes belong together and which populations they drive.

    Parameters
    ----------
    counts
        (n, G) raw counts.
    library_size
        (n,) or (n, 1) total counts over all genes.
    gene_embedding
        (G, d) G of the teacher's refinement.
    cell_embedding
        (n, d) Z of one view, or (n, 2 d) Z of both side by side.
    populations
        (n,) in [0, K), every number used.
    """
    logged = log_normalise(counts, library_size)
    step = max(1, -(-counts.shape[0] // MAX_CELLS))
    correlation = compute_correlations(logged[::step])
    neighbours = find_neighbours(correlation, min(N_NEIGHBORS, max(counts.shape[1] - 1, 0)))
    n_genes, n_nearest = neighbours.shape
    return GeneGraph(
        indptr=np.arange(n_genes + 1, dtype=np.int64) * n_nearest,
        indices=neighbours.reshape(-1),
        correlations=np.take_along_axis(correlation, neighbours, axis=1).reshape(-1).astype(np.float32),
        embedding=gene_embedding.astype(np.float32),
        association=compute_association(logged, cell_embedding, populations),
    )


def compute_association(
    logged: sp.csr_matrix, cell_embedding: NDArray[np.float32], populations: NDArray[np.int64]
) -> NDArray[np.float32]:
    r"""Compute how strongly each gene drives each population, (K, G) in [-1, 1].

    .. math:: a_{kg} = \mathrm{corr}_i(x_{ig}, \; z_i \cdot (\bar z_k - \bar z))

    the correlation over the cells of a gene with the place along the way from the middle of all populations to
    population k. The gene embedding itself does not say it: nothing in the objective ties the direction of G_g to the
    populations that express g (measured on PBMC: none of the 20 genes nearest to a population was one of its markers,
    against 15 to 20 of 20 by this formula).

    Parameters
    ----------
    logged
        (n, G) log-normalised counts.
    cell_embedding
        (n, d) Z, of one view or of both side by side.
    populations
        (n,) in [0, K), every number used.
    """
    cells = cell_embedding.astype(np.float64)
    sizes = np.bincount(populations)
    member = sp.csr_matrix((np.ones(len(cells)), (populations, np.arange(len(cells)))), (sizes.size, len(cells)))
    centroids = np.asarray(member @ cells) / sizes[:, None]
    # Each population counts once in the middle: else a large one would be its own background.
    place = cells @ (centroids - centroids.mean(axis=0)).T  # (n, K)
    place -= place.mean(axis=0)
    _, sd = _moments(logged)
    covariance = np.asarray(logged.T @ place, dtype=np.float64).T / len(cells)  # (K, G); the mean drops out
    scale = np.outer(place.std(axis=0), sd)
    association = np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 1e-12)
    return np.clip(association, -1.0, 1.0).astype(np.float32)


def compute_correlations(logged: sp.csr_matrix) -> NDArray[np.float32]:
    """Compute the Pearson correlations of the genes, (G, G) float32; 0 for a gene that does not vary.

    Parameters
    ----------
    logged
        (n, G) log-normalised counts.
    """
    mean, sd = _moments(logged)
    products = np.asarray((logged.T @ logged).todense(), dtype=np.float64) / logged.shape[0]
    covariance = products - np.outer(mean, mean)
    inverse = np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > 0)
    correlation = np.clip(covariance * inverse[:, None] * inverse, -1.0, 1.0)
    return correlation.astype(np.float32)


def find_neighbours(correlation: NDArray[np.float32], n_neighbors: int) -> NDArray[np.int64]:
    """Return the most correlated other genes of each gene, (G, n_neighbors), best first, equals by index."""
    similarity = correlation.copy()
    np.fill_diagonal(similarity, -np.inf)
    order: NDArray[np.int64] = np.argsort(-similarity, axis=1, kind="stable")[:, :n_neighbors].astype(np.int64)
    return order


def compute_evidence(student: Student, counts: sp.csr_matrix, library_size: NDArray[np.float32]) -> tuple[float, ...]:
    r"""Compute the share of the student's evidence that rests on each gene.

    .. math:: e_g \propto \lVert W_{\cdot g} \rVert_2^2 \, \mathrm{var}(v_g)

    with W the first layer and v its input (`take_roots`): the gene's share in the variance of the hidden units,
    as far as genes vary on their own.

    Parameters
    ----------
    student
        Trained.
    counts, library_size
        (n, G) and (n,) of the training cells.

    Returns
    -------
    tuple
        G non-negative numbers that sum to 1.
    """
    n_genes = counts.shape[1]
    _, sd = _moments(take_roots(counts, library_size, target_sum=student.config.target_sum))
    weight = np.linalg.norm(student.first.weight.detach().cpu().numpy().astype(np.float64), axis=0)
    evidence = (weight * sd) ** 2
    total = evidence.sum()
    share = evidence / total if total > 0 else np.full(n_genes, 1 / n_genes)
    return tuple(float(value) for value in share)


def compute_count_shares(counts: sp.csr_matrix, library_size: NDArray[np.float32]) -> tuple[float, ...]:
    """Compute the mean share of a cell's counts that each gene holds, (G,), to four digits.

    Parameters
    ----------
    counts, library_size
        (n, G) and (n,) of the training cells, the latter over all genes of the data.
    """
    shares = compute_rates(counts, library_size, 1.0).mean(axis=0)
    return tuple(float(f"{share:.4g}") for share in np.asarray(shares).ravel())


def _moments(matrix: sp.csr_matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and sd of each column, (G,); sd 0 for a column that does not vary."""
    n_cells, n_genes = matrix.shape
    mean = np.bincount(matrix.indices, matrix.data, n_genes) / n_cells
    square = np.bincount(matrix.indices, matrix.data**2, n_genes) / n_cells
    variance = square - mean * mean
    # Below this a gene is constant but for rounding.
    return mean, np.sqrt(np.where(variance > 1e-10, variance, 0.0))
