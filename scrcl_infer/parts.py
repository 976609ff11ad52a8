"""The parts of a bundle that are arrays, one `.npz` file each, which `scrcl_infer.arrays` reads and writes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Centroids:
    """`centroids.npz`: the populations in the embedding."""

    centroids: NDArray[np.float32]
    """(K, D) unit rows."""
    radii: NDArray[np.float32]  # (K,) cosine distance that holds 95 % of the population's training cells


@dataclass(frozen=True)
class Rejection:
    """`rejection.npz`: the training cells' classes, and how far held-out cells lie from them.

    Classes are the types of the type head, else the populations (C); `scrcl_infer.strangeness` uses them. The encoder's
    `components` are its input along the genes' mean, along Q principal directions across that, and its length;
    its `rarity` is the sum over the genes that a cell shows of how rare they are in each class.
    """

    embedding_whitening: NDArray[np.float32]  # (D, D) makes the embedding's spread within classes 1 in every direction
    embedding_means: NDArray[np.float32]  # (C, D) class means, after it
    embedding_radii: NDArray[np.float32]  # (C,) how far from its mean a class's own cells usually lie
    components_whitening: NDArray[np.float32]  # (Q, Q) likewise for the principal components, and so on
    components_means: NDArray[np.float32]  # (C, Q)
    components_radii: NDArray[np.float32]  # (C,)
    profile_means: NDArray[np.float32]  # (C, Q + 1) unit rows: where the classes' mean input points
    profile_radii: NDArray[np.float32]  # (C,)
    rarity: NDArray[np.uint8]  # (G, C) how rare the genes are in the classes; see `scrcl_infer.rarity`
    log_detected: NDArray[np.float32]
    """(m,) rising, log10 of the number of the model's genes that a cell shows: the knots of the next four."""
    overlap: NDArray[np.float32]  # (v,) rising to 1, shares of the model's genes that a file has
    median: NDArray[np.float32]
    """(v, m, 5) of held-out cells' distances to the nearest class, embedding, components, profile; of rarity; of doubt.
    """
    spread: NDArray[np.float32]  # (v, m, 5) median absolute deviation of them
    weights: NDArray[np.float32]  # (m, 5) of the signs, standardised; 0 for those that an older schema does not know
    limit: NDArray[np.float32]  # (v, m) that their weighted sum stays below for 95 % of the held-out cells


@dataclass(frozen=True)
class HeldOutAnswers:
    """`held_out.npz`: what first students answered for training cells that they had not learned (m cells)."""

    log_posterior: NDArray[np.float32]
    """(m, K) over populations."""
    population: NDArray[np.int64]
    """(m,) that each cell is of, in [0, K)."""
    within: NDArray[np.bool_]
    """(m,) whether it is within the limit of strangeness."""


@dataclass(frozen=True)
class GeneGraph:
    """`gene_graph.npz`: the gene-gene structure of the training data."""

    indptr: NDArray[np.int64]
    """(G + 1,) CSR row starts; row i lists the nearest genes of gene i."""
    indices: NDArray[np.int64]
    """(nnz,) gene indices."""
    correlations: NDArray[np.float32]
    """(nnz,) Pearson correlation of the two genes over the training cells."""
    embedding: NDArray[np.float32]
    """(G, d) gene embedding of the teacher."""
    association: NDArray[np.float32]
    """(K, G) cell-gene association: how strongly the gene drives the population."""


@dataclass(frozen=True)
class Golden:
    """`golden.npz`: rows of training data and the answers expected for them."""

    counts: NDArray[np.float32]
    """(m, G)"""
    library_size: NDArray[np.float32]
    """(m, 1)"""
    embedding: NDArray[np.float32]
    """(m, D)"""
    log_posterior: NDArray[np.float32]
    """(m, K)"""
    map: NDArray[np.float32]
    """(m, 2)"""
    log_type_posterior: NDArray[np.float32]
    """(m, T), T = 0 without a type head"""
