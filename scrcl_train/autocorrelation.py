"""Which genes vary over a tissue rather than from spot to spot: Moran's I over the graph of neighbouring spots."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

GENES_AT_ONCE = 256
"""Columns that are made dense at a time; the answer does not depend on it."""


def compute_autocorrelation(
    values: NDArray[np.floating] | sp.csr_matrix, graph: sp.csr_matrix, section: NDArray[np.generic] | None = None
) -> NDArray[np.float64]:
    r"""Compute Moran's I of each column, (g,); 0 for a column that does not vary.

    .. math:: I = \frac{n}{\sum_{ij} A_{ij}} \frac{\sum_{ij} A_{ij} v_i v_j}{\sum_i v_i^2}

    with v centred; about 0 for values strewn at random, near 1 for values that neighbours share.

    Parameters
    ----------
    values
        (n, g), dense or CSR.
    graph
        (n, n) symmetric 0/1 without loops.
    section
        (n,); values are centred in each section, so that a difference between sections counts for nothing.
    """
    links, n_spots = graph.astype(np.float64), values.shape[0]
    by_gene = sp.csc_matrix(values) if sp.issparse(values) else values
    moran: NDArray[np.float64] = np.zeros(values.shape[1])
    for start in range(0, values.shape[1], GENES_AT_ONCE):
        columns = slice(start, start + GENES_AT_ONCE)
        part = by_gene[:, columns]
        centred = centre(np.asarray(part.toarray() if sp.issparse(part) else part, dtype=np.float64), section)
        shared = np.einsum("ng,ng->g", centred, links @ centred)
        squares = np.einsum("ng,ng->g", centred, centred)
        moran[columns] = np.divide(shared, squares, out=np.zeros_like(shared), where=squares > 1e-9)
    moran *= n_spots / max(float(graph.sum()), 1.0)
    return moran


def choose_autocorrelated(
    values: sp.csr_matrix, graph: sp.csr_matrix, n_genes: int, *, section: NDArray[np.generic] | None = None
) -> NDArray[np.int64]:
    """Return the columns with the highest Moran's I, (min(n_genes, g),), ascending; arguments as above."""
    order = np.argsort(-compute_autocorrelation(values, graph, section), kind="stable")
    return np.sort(order[:n_genes]).astype(np.int64)


def centre(values: NDArray[np.floating], section: NDArray[np.generic] | None) -> NDArray[np.floating]:
    """Subtract from each section (from all rows for None) its columns' means."""
    centred = values.copy()
    for name in [None] if section is None else np.unique(section):
        rows = slice(None) if name is None else section == name
        centred[rows] -= centred[rows].mean(axis=0)
    return centred
