"""The settings of a training run: frozen dataclasses, each field with its meaning and unit.

`scrcl_train.presets` holds the named sets of values, with the source of each constant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class FeatureConfig:
    """From counts to the matrix X (n, g) that both views see."""

    n_hvgs: int | None = 2000
    """Highly variable genes kept; None keeps all genes."""
    hvg_flavor: Literal["seurat", "seurat_v3"] = "seurat"
    values: Literal["counts", "log1p", "scaled", "scaled_uncentred"] = "scaled"
    """Raw counts; log1p of counts per ten thousand; that, standardised per gene; or divided by the sd only."""
    max_value: float = 10.0
    """Standardised values are clipped here."""
    n_pcs: int = 50
    """Principal components of the standardised matrix."""


@dataclass(frozen=True)
class GraphConfig:
    """The cell graph A (n, n) and the gene graph (g, g)."""

    space: Literal["scaled_pcs", "log_hvgs", "spots"] = "scaled_pcs"
    n_neighbors: int = 15
    n_graph_pcs: int = 30
    """PCs used for `scaled_pcs`."""
    exact_below: int = 10_000
    """Fewer cells than this: exact neighbours; from here on approximate ones (and PCs also for `log_hvgs`)."""
    gene_neighbors: int = 5


@dataclass(frozen=True)
class TeacherConfig:
    """The two views, the refinement, the objective and its optimiser (paper section 'Method')."""

    hidden: int = 256
    """Width h of both views."""
    dim: int = 32
    """Width d of the gene embedding and of Z."""
    smoothing: tuple[int, int] = (1, 1)
    """Steps s of the graph filter on the input of view 1 and view 2."""
    dropout: float = 0.3
    temperature: float = 0.1
    lambda_nca: float = 10.0
    lambda_cvc: float = 1.0
    learning_rate: float = 3e-4
    weight_decay: float = 0.0
    epochs: int = 40


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a run; what a preset names."""

    preset: str = "default"
    features: FeatureConfig = field(default_factory=FeatureConfig)
    graph: GraphConfig = field(default_factory=GraphConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
