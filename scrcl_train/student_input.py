"""What the student sees of the counts: roots in whole steps, their means, and the directions that cells spread in."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

MIN_LIBRARY = 1e-6
"""Library sizes are raised to this, so that a cell without counts gives roots of 1 and not 0 / 0."""
N_STEPS = 58
"""Steps in a unit of the root: so many that 125 is the most that a gene can come to, all counts of a cell being its.
The product of two such numbers with weights of 8 bits, added, fits the 16 bits that older processors add them in."""
STEP = 8 / N_STEPS
"""What a step stands for: 8 (1 + r)^(1/8) rises with r from 0 on as log(1 + r) does."""
MAX_STEPS = 255
"""What 8 bits hold; reached only where counts exceed the library size."""


def fit_input_mean(
    counts: sp.csr_matrix, library_size: NDArray[np.float32], *, target_sum: float = 10_000.0
) -> NDArray[np.float32]:
    """Compute each gene's mean of `take_roots` over the training cells, (G,).

    Parameters
    ----------
    counts
        (n, G) raw counts.
    library_size
        (n,) or (n, 1) total counts over all genes.
    """
    roots = take_roots(counts, library_size, target_sum=target_sum)
    mean = np.bincount(roots.indices, roots.data, counts.shape[1]) / counts.shape[0]
    return mean.astype(np.float32)


def fit_input_directions(
    counts: sp.csr_matrix, library_size: NDArray[np.float32], n_components: int, *, target_sum: float = 10_000.0
) -> NDArray[np.float32]:
    """Compute the direction of the genes' mean and the leading principal directions across it.

    Parameters
    ----------
    counts
        (n, G) raw counts.
    library_size
        (n,) or (n, 1) total counts over all genes.
    n_components
        At most G - 1.

    Returns
    -------
    NDArray
        (G, 1 + n_components) orthonormal, of `take_roots`.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    roots = take_roots(counts, library_size, target_sum=target_sum)
    n, n_genes = roots.shape
    mean = np.asarray(roots.mean(axis=0)).reshape(-1)
    length = float(np.linalg.norm(mean))
    along = mean / length if length > 0 else np.full(n_genes, n_genes**-0.5)

    def multiply(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """Covariance of what is left across the mean."""
        flat = np.reshape(vector, -1)
        flat = flat - along * (along @ flat)
        found = roots.T @ (roots @ flat) / n - mean * (mean @ flat)
        across: NDArray[np.float64] = found - along * (along @ found)
        return across

    if n_genes < 4 * n_components:  # too few for the iteration
        covariance = np.column_stack([multiply(unit) for unit in np.eye(n_genes)]) - np.outer(along, along)
        vectors = np.linalg.eigh((covariance + covariance.T) / 2)[1]
    else:
        operator = LinearOperator((n_genes, n_genes), matvec=multiply, dtype=np.float64)
        _, vectors = eigsh(operator, k=n_components, v0=np.ones(n_genes), tol=1e-6)
    return np.column_stack([along, vectors[:, ::-1][:, :n_components]]).astype(np.float32)


def take_roots(
    counts: sp.csr_matrix, library_size: NDArray[np.float32], *, target_sum: float = 10_000.0
) -> sp.csr_matrix:
    """Return 8 ((1 + r)^(1/8) - 1), r counts per `target_sum`, in whole steps of `STEP`: the input before centring.

    Returns
    -------
    csr_matrix
        (n, G) float64.
    """
    rates = compute_rates(counts, library_size, target_sum)
    rates.data = STEP * np.minimum(np.rint(N_STEPS * np.expm1(np.log1p(rates.data) / 8)), MAX_STEPS)
    return rates


def log_normalise(
    counts: sp.csr_matrix, library_size: NDArray[np.float32], *, target_sum: float = 10_000.0
) -> sp.csr_matrix:
    """Return log1p of counts per `target_sum`, (n, G) CSR float64."""
    rates = compute_rates(counts, library_size, target_sum)
    rates.data = np.log1p(rates.data)
    return rates


def compute_rates(counts: sp.csr_matrix, library_size: NDArray[np.float32], target_sum: float) -> sp.csr_matrix:
    """Return counts per `target_sum`, (n, G) CSR float64; the library sizes are (n,) or (n, 1), over all genes."""
    library = np.maximum(np.reshape(library_size, -1).astype(np.float64), MIN_LIBRARY)
    rates = sp.csr_matrix(counts, dtype=np.float64, copy=True)
    rates.sum_duplicates()
    rates.data *= np.repeat(target_sum / library, np.diff(rates.indptr))
    return rates
