"""A seeded simulator of single-cell counts: the product's embedded example and the tests' known truth.

Negative-binomial counts around type-specific gene means, with log-normal depths, two closely related types, one rare
type, and batches that differ in depth and in the efficiency of every gene.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


@dataclass(frozen=True)
class SimulatorConfig:
    """What to simulate; the defaults give the example of `scrcl-train demo`."""

    n_cells: int = 2400
    n_genes: int = 1500
    n_batches: int = 2
    shares: tuple[float, ...] = (0.28, 0.22, 0.18, 0.17, 0.13, 0.02)
    """Share of each type; the last one is the rare type."""
    n_markers: int = 60
    """Genes raised in each type."""
    n_subtype_markers: int = 25
    """Genes that tell the second type from the first, its close relative."""
    marker_log_fold: float = 1.5
    """Natural-log fold change of a marker, mean."""
    dispersion: float = 2.0
    """Negative-binomial size; variance = mean + mean² / size."""
    median_depth: float = 2500.0
    """Median counts of a cell."""
    depth_log_sd: float = 0.45
    batch_log_sd: float = 0.25
    """Sd of each gene's log efficiency in every batch but the first."""


TYPE_NAMES = ("T naive", "T memory", "B", "Monocyte", "NK", "Platelet")
"""Names for up to six types; the first two are the relatives."""


def simulate(config: SimulatorConfig | None = None, *, seed: int = 0) -> AnnData:
    """Simulate cells of known type.

    Returns
    -------
    AnnData
        X (n_cells, n_genes) float32 CSR counts; obs 'cell_type' and 'batch' (categorical); var_names 'Gene0001', ...

    Raises
    ------
    ValueError
        More types than names, or shares that do not sum to 1.
    """
    import pandas as pd
    from anndata import AnnData

    config = config or SimulatorConfig()
    if len(config.shares) > len(TYPE_NAMES) or abs(sum(config.shares) - 1) > 1e-9:
        msg = f"shares must sum to 1 and number at most {len(TYPE_NAMES)}, was: {config.shares}"
        raise ValueError(msg)
    rng = np.random.default_rng(seed)
    n_types = len(config.shares)
    profiles = _profiles(config, rng)
    types = rng.choice(n_types, size=config.n_cells, p=config.shares)
    types[:n_types] = np.arange(n_types)  # no type is ever absent
    batches = rng.integers(config.n_batches, size=config.n_cells)
    counts = _counts(profiles, types, batches, config, rng)
    names = [TYPE_NAMES[i] for i in range(n_types)]
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(types, categories=names),
            "batch": pd.Categorical.from_codes(batches, categories=[f"batch{b + 1}" for b in range(config.n_batches)]),
        },
        index=[f"cell{i + 1:06d}" for i in range(config.n_cells)],
    )
    var = pd.DataFrame(index=[f"Gene{i + 1:04d}" for i in range(config.n_genes)])
    return AnnData(X=sp.csr_matrix(counts, dtype=np.float32), obs=obs, var=var)


def _profiles(config: SimulatorConfig, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the expected share of each gene in each type, (n_types, n_genes), rows sum to 1."""
    base = rng.gamma(0.6, 1.0, size=config.n_genes) + 0.01
    log_fold = np.zeros((len(config.shares), config.n_genes))
    for kind in range(len(config.shares)):
        if kind == 1:
            log_fold[1] = log_fold[0]  # the relative starts from its sibling's profile
        n_raised = config.n_subtype_markers if kind == 1 else config.n_markers
        raised = rng.choice(config.n_genes, size=n_raised, replace=False)
        log_fold[kind, raised] += rng.normal(config.marker_log_fold, 0.3, size=n_raised)
    profiles = base * np.exp(log_fold)
    shares: NDArray[np.float64] = profiles / profiles.sum(axis=1, keepdims=True)
    return shares


def _counts(
    profiles: NDArray[np.float64],
    types: NDArray[np.int64],
    batches: NDArray[np.int64],
    config: SimulatorConfig,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw the counts (n_cells, n_genes) as gamma-Poisson, i.e. negative-binomial."""
    efficiency = np.exp(rng.normal(0.0, config.batch_log_sd, size=(config.n_batches, profiles.shape[1])))
    efficiency[0] = 1.0
    depth_of_batch = config.median_depth * 0.7 ** np.arange(config.n_batches)  # later batches are shallower
    depth = depth_of_batch[batches] * np.exp(rng.normal(0.0, config.depth_log_sd, size=types.size))
    mean = profiles[types] * efficiency[batches]
    mean *= (depth / mean.sum(axis=1))[:, None]
    rate = rng.gamma(config.dispersion, mean / config.dispersion)
    counts: NDArray[np.int64] = rng.poisson(rate)
    return counts
