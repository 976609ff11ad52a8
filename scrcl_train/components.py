"""Principal components, and how much of each the gene-gene correlations support.

On standardised genes the components are the eigenvectors of the gene-gene correlation matrix. Sampling noise alone
spreads over all of them, so the weakest component kept shows its level. Wiener's filter then keeps of each score the
share of its variance that is above that level: a cell is described by what many correlated genes say together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


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


def compute_support(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    r"""Return the share of each component's variance that is above the noise of the last one.

    .. math:: w_j = 1 - λ_p / λ_j

    Parameters
    ----------
    scores
        (n, p) principal components, largest variance first.

    Returns
    -------
    ndarray
        (p,) in [0, 1], not increasing, 0 for the last component and for those without variance. Where no component
        stands out from the last one nothing is known of the noise, and all are 1.
    """
    variance = scores.var(axis=0, dtype=np.float64)
    floor = max(float(variance[-1]), 1e-12)
    support = np.maximum(1 - floor / np.maximum(variance, floor), 0.0)
    if support.max() < 1e-6:  # rounding apart, all are equal
        support = np.ones_like(support)
    share: NDArray[np.float32] = support.astype(np.float32)
    return share
