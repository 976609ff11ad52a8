"""Principal components, and how much of each the gene-gene correlations support.

On standardised genes the components are the eigenvectors of the gene-gene correlation matrix. Genes that have nothing
to do with each other give components, too: how large is seen where each gene's values are dealt to the cells anew,
which leaves every gene as it is and takes the correlations away (parallel analysis; Horn 1965, Buja and Eyuboglu 1992).
Wiener's filter then keeps of each score the share of its variance that is above that level: a cell is described by what
many correlated genes say together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scrcl_train.graphs import gram

MAX_DEALT = 20_000
"""Cells whose values are dealt anew where there are more; what more cells would give follows from their number."""


class Neighbors(NamedTuple):
    """Nearest other cells of each cell by cosine, both (n, k)."""

    plain: NDArray[np.int64]
    """On the leading components as they are."""
    refined: NDArray[np.int64]
    """On `Components.refined`."""


@dataclass(frozen=True)
class Components:
    """The principal components of the standardised and clipped matrix (n cells, g genes, p components)."""

    scores: NDArray[np.float32]
    """P (n, p)"""
    loadings: NDArray[np.float32]
    """V (g, p), unit columns; the scores are the centred matrix times these."""
    support: NDArray[np.float32]
    """w (p,) in [0, 1], from `compute_support`."""
    noise: float
    """Variance of the largest component that genes without correlation would have, from `measure_noise`."""

    @property
    def supported(self) -> NDArray[np.bool_]:
        """(p,) which components have any support."""
        return self.support > 0

    @property
    def shrunk(self) -> NDArray[np.float32]:
        """S = P w, (n, p): the scores without what noise alone would give."""
        return self.scores * self.support

    @property
    def refined(self) -> NDArray[np.float32]:
        """S₁ = P √w, (n, p): half way, which keeps more of the small differences."""
        return self.scores * np.sqrt(self.support)


def principal_components(
    matrix: NDArray[np.float32] | sp.csr_matrix, n_components: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Project centred rows on the leading eigenvectors of the covariance.

    Parameters
    ----------
    matrix
        (n, g), dense or CSR.
    n_components
        p, bounded by n - 1 and g.

    Returns
    -------
    scores, loadings
        (n, p) and (g, p) float32; the largest loading of each component is positive, so that signs never depend on
        chance.
    """
    from scipy.linalg import eigh

    n_cells, n_genes = matrix.shape
    n_components = min(n_components, n_cells - 1, n_genes)
    mean = np.asarray(matrix.mean(axis=0, dtype=np.float64)).ravel()
    covariance = (gram(matrix) - n_cells * np.outer(mean, mean)) / (n_cells - 1)
    _, vectors = eigh(covariance, subset_by_index=(n_genes - n_components, n_genes - 1))
    vectors = vectors[:, ::-1]  # (g, p), largest variance first
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(n_components)]
    vectors = vectors * np.where(largest < 0, -1.0, 1.0)
    scores: NDArray[np.float32] = np.asarray(matrix @ vectors.astype(np.float32), dtype=np.float32)
    scores -= (mean @ vectors).astype(np.float32)
    return scores, vectors.astype(np.float32)


def measure_noise(matrix: NDArray[np.float32], *, seed: int = 0) -> float:
    r"""Return the variance of the largest component of genes that have lost their correlations.

    Each gene's values are dealt to the cells anew. Of more than `MAX_DEALT` cells that many are drawn, and the variance
    brought to all n by the edge of the Marchenko-Pastur law, :math:`(1 + \sqrt{g / n})^2`.

    Parameters
    ----------
    matrix
        (n, g) standardised genes.
    seed
        Of the deal. The default is used throughout: features do not depend on a run's seed.
    """
    rng = np.random.default_rng(seed)
    n_cells, n_genes = matrix.shape
    drawn = matrix if n_cells <= MAX_DEALT else matrix[np.sort(rng.permutation(n_cells)[:MAX_DEALT])]
    scores, _ = principal_components(rng.permuted(drawn, axis=0), 1)
    edge, edge_of_drawn = ((1 + np.sqrt(n_genes / n)) ** 2 for n in (n_cells, len(drawn)))
    return float(scores.var(dtype=np.float64) * edge / edge_of_drawn)


def compute_support(scores: NDArray[np.floating], noise: float) -> NDArray[np.float32]:
    r"""Return the share of each component's variance that is above the noise.

    .. math:: w_j = \max(0, 1 - noise / λ_j)

    Parameters
    ----------
    scores
        (n, p) principal components, largest variance first.
    noise
        From `measure_noise`.

    Returns
    -------
    ndarray
        (p,) in [0, 1], not increasing. Where no component stands out from the noise nothing is known, and all are 1.
    """
    variance = scores.var(axis=0, dtype=np.float64)
    floor = max(noise, 1e-12)
    support = np.maximum(1 - floor / np.maximum(variance, floor), 0.0)
    if support.max() < 1e-6:  # rounding apart, none is above it
        support = np.ones_like(support)
    share: NDArray[np.float32] = support.astype(np.float32)
    return share
