"""From counts to what the teacher sees: variable genes, the input matrix, principal components, both graphs.

Labels have no way in. Arrays are (cells, genes); the dense (n, g) matrix of variable genes is the largest thing made.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scrcl_infer.errors import InputError
from scrcl_train.autocorrelation import choose_autocorrelated
from scrcl_train.components import Components, Neighbors, compute_support, measure_noise, principal_components
from scrcl_train.config import GraphConfig, TrainConfig
from scrcl_train.graphs import (
    gene_graph,
    gene_program_graph,
    join_neighbors,
    knn_graph,
    nearest_neighbors,
    spot_graph,
)

TARGET_SUM = 10_000.0
"""Counts per cell after normalisation; also `EncoderSpec.target_sum`."""
PC_SCALE, PC_SCALE_LEADING = 2.0, 10
"""As input, components are brought to this mean standard deviation over so many leading ones; their ratios stay."""
LOG_GRAPH_PCS = 50
"""PCs that stand in for the genes in the `log_hvgs` graph of many cells (paper's code)."""


@dataclass(frozen=True)
class Features:
    """What the teacher sees of a data set."""

    hvgs: NDArray[np.int64]
    """(g,) columns of the count matrix, ascending."""
    inputs: NDArray[np.float32] | sp.csr_matrix
    """(n, g) matrix X; CSR where the values are counts. For `pcs` (n, q): refined scores at one common scale, without
    the components that nothing supports."""
    mean: NDArray[np.float32]
    """(g,) mean of log1p(CP10k) over the cells."""
    sd: NDArray[np.float32]
    """(g,) standard deviation of log1p(CP10k), n - 1 in the denominator; 1 for constant genes."""
    cell_graph: sp.csr_matrix
    """(n, n) symmetric 0/1 graph without loops."""
    gene_graph: sp.csr_matrix
    """(g, g) 0/1 graph; row i lists the nearest genes of gene i, itself included; symmetric for `pcs`."""
    components: Components | None = None
    """Of the standardised and clipped matrix; `pcs` only."""
    neighbors: Neighbors | None = None
    """Of each cell; `pcs` only, and not for spots."""


def prepare_features(
    counts: sp.csr_matrix,
    config: TrainConfig,
    *,
    library_size: NDArray[np.floating] | None = None,
    batch: NDArray[np.generic] | None = None,
    spatial: NDArray[np.floating] | None = None,
    section: NDArray[np.generic] | None = None,
    seed: int = 0,
) -> Features:
    """Choose genes, normalise, and build the graphs.

    Parameters
    ----------
    counts
        (n, g_all) raw counts of all genes.
    config
        Settings of features and graph.
    library_size
        (n,) total counts of each cell; None takes the row sums.
    batch
        (n,) names; variable genes are then chosen within each batch and combined.
    spatial, section
        (n, 2) coordinates, required for the `spots` graph, and (n,) names of sections; no edge joins two of them.
    seed
        Of the approximate neighbour search.

    Raises
    ------
    InputError
        There are too few cells or genes, a cell holds no counts, or coordinates are missing.
    """
    counts = sp.csr_matrix(counts, dtype=np.float32)
    library_size = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel() if library_size is None else library_size
    _check(counts, library_size, config.graph, spatial)
    log_all = normalise(counts, library_size)
    spots = None
    if config.spatial:  # _check has seen that there are coordinates
        spots = spot_graph(np.asarray(spatial), n_neighbors=config.graph.n_neighbors, section=section)
    hvgs = variable_genes(counts, log_all, config, batch=batch, spots=spots, section=section)
    log = sp.csr_matrix(log_all[:, hvgs])
    mean, sd = column_moments(log)
    if config.features.values == "pcs":
        scaled = standardise(log, mean, sd, max_value=config.features.max_value)
        scores, loadings = principal_components(scaled, config.features.n_pcs)
        noise = measure_noise(scaled)
        components = Components(scores, loadings, compute_support(scores, noise), noise)
        inputs, genes = _refine(components, config.graph)
        if spots is not None:
            return Features(hvgs, inputs, mean, sd, spots, genes, components)
        neighbors = _neighbors(components, config.graph, seed=seed)
        cell_graph = join_neighbors(neighbors.refined)
        return Features(hvgs, inputs, mean, sd, cell_graph, genes, components, neighbors)
    values: NDArray[np.float32] | sp.csr_matrix = sp.csr_matrix(counts[:, hvgs])
    if config.features.values == "scaled_uncentred":
        values = standardise(log, np.zeros_like(mean), sd, max_value=config.features.max_value)
    cell_graph = _log_graph(config.graph, log, seed=seed) if spots is None else spots
    genes = gene_graph(values, n_neighbors=config.graph.gene_neighbors)
    return Features(hvgs, values, mean, sd, cell_graph, genes)


def normalise(counts: sp.csr_matrix, library_size: NDArray[np.floating]) -> sp.csr_matrix:
    """Return log1p of counts per ten thousand, (n, g) float32; rows without counts stay zero."""
    scale = TARGET_SUM / np.maximum(library_size, 1.0)
    log = counts.copy()
    log.data = np.log1p(log.data * np.repeat(scale, np.diff(log.indptr))).astype(np.float32)
    return log


def variable_genes(
    counts: sp.csr_matrix,
    log: sp.csr_matrix,
    config: TrainConfig,
    *,
    batch: NDArray[np.generic] | None = None,
    spots: sp.csr_matrix | None = None,
    section: NDArray[np.generic] | None = None,
) -> NDArray[np.int64]:
    """Return the columns of the most variable genes, ascending.

    Scanpy's `highly_variable_genes`, or those with the highest Moran's I over the graph of the spots, among the genes
    that at least `min_cells` cells express.

    Raises
    ------
    InputError
        Fewer than two genes are expressed by enough cells, or scikit-misc is missing for `seurat_v3`.
    """
    features = config.features
    expressed = np.flatnonzero(
        np.bincount(counts.indices[counts.data > 0], minlength=counts.shape[1]) >= features.min_cells
    )
    if len(expressed) < 2:
        msg = (
            f"Only {len(expressed)} genes are expressed by at least {features.min_cells} cells; at least 2 are needed. "
            "Give raw counts of more cells or genes."
        )
        raise InputError(msg)
    if features.n_hvgs is None or features.n_hvgs >= len(expressed):
        return expressed.astype(np.int64)
    if spots is not None and features.hvg_flavor == "moran":
        candidates = sp.csr_matrix(log[:, expressed])
        return expressed[choose_autocorrelated(candidates, spots, features.n_hvgs, section=section)].astype(np.int64)
    import pandas as pd
    import scanpy
    from anndata import AnnData

    matrix = log if features.hvg_flavor == "seurat" else counts
    table = AnnData(sp.csr_matrix(matrix[:, expressed]))
    if batch is not None:
        table.obs["batch"] = pd.Categorical(np.asarray(batch).astype(str))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scanpy's own deprecations
        try:
            scanpy.pp.highly_variable_genes(
                table,
                n_top_genes=features.n_hvgs,
                flavor=features.hvg_flavor,
                batch_key=None if batch is None else "batch",
            )
        except ImportError as error:
            msg = "Genes by 'seurat_v3' need scikit-misc: pip install scikit-misc, or take hvg_flavor 'seurat'."
            raise InputError(msg) from error
    chosen: NDArray[np.int64] = expressed[table.var["highly_variable"].to_numpy()].astype(np.int64)
    return chosen


def column_moments(matrix: sp.csr_matrix) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mean and standard deviation of each column, both (g,); the latter is 1 for constant columns."""
    n_rows = matrix.shape[0]
    wide = matrix.astype(np.float64)
    mean = np.asarray(wide.mean(axis=0)).ravel()
    squares = np.asarray(wide.power(2).sum(axis=0)).ravel()
    variance = np.maximum(squares - n_rows * mean**2, 0.0) / max(n_rows - 1, 1)
    sd = np.sqrt(variance)
    sd[sd < 1e-8] = 1.0
    return mean.astype(np.float32), sd.astype(np.float32)


def standardise(
    matrix: sp.csr_matrix, mean: NDArray[np.float32], sd: NDArray[np.float32], *, max_value: float
) -> NDArray[np.float32]:
    """Return (X - mean) / sd, clipped at +-max_value: (n, g) dense float32."""
    scaled: NDArray[np.float32] = np.ascontiguousarray(matrix.toarray(), dtype=np.float32)
    scaled -= mean
    scaled /= sd
    np.clip(scaled, -max_value, max_value, out=scaled)
    return scaled


def _refine(components: Components, graph: GraphConfig) -> tuple[NDArray[np.float32], sp.csr_matrix]:
    """Return the input (n, q) at one common scale, and the graph of genes that do the same along the components."""
    refined = components.refined[:, components.supported]
    spread = refined.std(axis=0)
    genes = gene_program_graph(components.loadings[:, components.supported] * spread, n_neighbors=graph.gene_neighbors)
    inputs = refined * np.float32(PC_SCALE / max(float(spread[:PC_SCALE_LEADING].mean()), 1e-12))
    return inputs, genes


def _neighbors(components: Components, graph: GraphConfig, *, seed: int) -> Neighbors:
    plain, refined = (
        nearest_neighbors(points, n_neighbors=graph.n_neighbors, cosine=True, exact_below=graph.exact_below, seed=seed)
        for points in (components.scores[:, : graph.n_graph_pcs], components.refined)
    )
    return Neighbors(plain, refined)


def _log_graph(graph: GraphConfig, log: sp.csr_matrix, *, seed: int) -> sp.csr_matrix:
    points = log.toarray() if log.shape[0] < graph.exact_below else principal_components(log, LOG_GRAPH_PCS)[0]
    return knn_graph(points, n_neighbors=graph.n_neighbors, cosine=True, exact_below=graph.exact_below, seed=seed)


def _check(
    counts: sp.csr_matrix,
    library_size: NDArray[np.floating],
    graph: GraphConfig,
    spatial: NDArray[np.floating] | None,
) -> None:
    if counts.shape[0] < 3:
        msg = f"Training needs at least 3 cells; found {counts.shape[0]}. Give a file with more cells."
        raise InputError(msg)
    if not np.all(library_size > 0):
        empty = np.flatnonzero(~(library_size > 0))
        msg = (
            f"{len(empty)} cells hold no counts (the first is row {empty[0]}); every training cell needs some. "
            "Filter them out, e.g. with scanpy.pp.filter_cells(adata, min_counts=1)."
        )
        raise InputError(msg)
    if graph.space == "spots" and spatial is None:
        msg = "This preset joins neighbouring spots, but no coordinates were given. Pass obsm['spatial']."
        raise InputError(msg)
    if spatial is not None and len(spatial) != counts.shape[0]:
        msg = f"There are {counts.shape[0]} spots but {len(spatial)} coordinates. Give one place per spot."
        raise InputError(msg)
