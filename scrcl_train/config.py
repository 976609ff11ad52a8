"""The settings of a training run: frozen dataclasses, each field with its meaning and unit.

`scrcl_train.presets` holds the named sets of values, with the source of each constant.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from scrcl_infer.errors import TrainingError

HvgFlavor = Literal["seurat", "seurat_v3", "moran"]
Values = Literal["counts", "scaled_uncentred", "pcs"]
GraphSpace = Literal["scaled_pcs", "log_hvgs", "spots"]
Refinement = Literal["paper", "programs"]


@dataclass(frozen=True)
class FeatureConfig:
    """From counts to the matrix X that both views see, (n, g) or for `pcs` (n, p)."""

    n_hvgs: int | None = 2000
    """Highly variable genes kept; None keeps all genes that enough cells express."""
    hvg_flavor: HvgFlavor = "seurat"
    """Dispersion of log1p data in bins of the mean; variance of counts about a fitted trend; or, for tissue sections,
    autocorrelation of log1p data over neighbouring spots."""
    min_cells: int = 3
    """Cells that must express a gene for it to be considered."""
    values: Values = "pcs"
    """Raw counts; log1p of counts per ten thousand divided by its sd per gene; or the principal components of the
    standardised matrix, shrunk to what the gene-gene correlations support (see `scrcl_train.components`). The last
    confines the first layers' gene weights to the components' span."""
    max_value: float = 10.0
    """Standardised values are clipped here, in units of the sd."""
    n_pcs: int = 50
    """Principal components of the standardised matrix; the last one shows the level of the noise."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _one_of("hvg_flavor", self.hvg_flavor, get_args(HvgFlavor))
        _one_of("values", self.values, get_args(Values))
        _at_least("n_hvgs", self.n_hvgs if self.n_hvgs is not None else 2, 2)
        _at_least("min_cells", self.min_cells, 1)
        _above("max_value", self.max_value, 0)
        _at_least("n_pcs", self.n_pcs, 2)


@dataclass(frozen=True)
class GraphConfig:
    """The cell graph A (n, n) and the gene graph (g, g)."""

    space: GraphSpace = "scaled_pcs"
    """Cosine on the shrunk components of the standardised matrix; cosine on log1p HVGs; or nearest spots."""
    n_neighbors: int = 15
    """Nearest others of each cell, before the graph is made symmetric."""
    n_graph_pcs: int = 30
    """Leading PCs, as they are, for the neighbours that vote on populations."""
    exact_below: int = 10_000
    """Fewer cells than this: exact neighbours; from here on approximate ones (and 50 PCs in place of `log_hvgs`)."""
    gene_neighbors: int = 10
    """Nearest genes of each gene, itself included."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _one_of("space", self.space, get_args(GraphSpace))
        for name in ("n_neighbors", "n_graph_pcs", "exact_below", "gene_neighbors"):
            _at_least(name, getattr(self, name), 1)


@dataclass(frozen=True)
class TeacherConfig:
    """The two views, the refinement, the objective and its optimiser (paper section 'Method')."""

    refinement: Refinement = "programs"
    """The paper's gene convolution, or signed gene programs with a balanced consistency (see `scrcl_train.model`)."""
    hidden: int = 128
    """Width h of both views."""
    dim: int = 32
    """Width d of the gene embedding and of Z."""
    smoothing: tuple[int, int] = (1, 1)
    """Steps s of the graph filter on the input of view 1 and view 2."""
    dropout: float = 0.3
    """Probability of zeroing an entry in training."""
    temperature: float = 1.0
    """t of the softmax over embeddings."""
    lambda_nca: float = 10.0
    """λ₁, weight of the neighbourhood contrastive alignment."""
    lambda_cvc: float = 1.0
    """λ₂, weight of the cross-view consistency."""
    learning_rate: float = 1e-3
    """Of Adam."""
    weight_decay: float = 0.0
    """Of Adam, added to the gradient."""
    epochs: int = 40
    """Full-batch steps."""

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        _one_of("refinement", self.refinement, get_args(Refinement))
        for name in ("hidden", "dim", "epochs"):
            _at_least(name, getattr(self, name), 1)
        for name in ("lambda_nca", "lambda_cvc", "weight_decay"):
            _at_least(name, getattr(self, name), 0)
        for name in ("temperature", "learning_rate"):
            _above(name, getattr(self, name), 0)
        if len(self.smoothing) != 2 or min(self.smoothing) < 0:
            msg = f"smoothing must be two numbers of steps, 0 or more; found {self.smoothing}."
            raise TrainingError(msg)
        if not 0 <= self.dropout < 1:
            msg = f"dropout must be at least 0 and below 1; found {self.dropout}."
            raise TrainingError(msg)


@dataclass(frozen=True)
class TrainConfig:
    """All settings of a run; what a preset names."""

    preset: str = "default"
    """Name of the preset that the settings started from."""
    features: FeatureConfig = field(default_factory=FeatureConfig)
    graph: GraphConfig = field(default_factory=GraphConfig)
    teacher: TeacherConfig = field(default_factory=TeacherConfig)
    n_voters: int = 0
    """Nearest spots whose majority replaces a spot's population; 0 leaves it as it is."""

    @property
    def spatial(self) -> bool:
        """Whether cells are spots of tissue sections, averaged over their neighbours there."""
        return self.graph.space == "spots"

    def __post_init__(self) -> None:
        """Refuse parts that do not go together."""
        _at_least("n_voters", self.n_voters, 0)
        if not self.spatial and (self.n_voters or self.features.hvg_flavor == "moran"):
            msg = "n_voters and hvg_flavor 'moran' need neighbouring spots: set the graph's space to 'spots'."
            raise TrainingError(msg)
        if self.graph.space == "scaled_pcs" and self.features.values != "pcs":
            msg = f"The graph's space 'scaled_pcs' needs the input 'pcs'; found {self.features.values!r}."
            raise TrainingError(msg)
        if (self.features.values == "pcs") != (self.teacher.refinement == "programs"):
            msg = (
                f"The refinement {self.teacher.refinement!r} does not go with the input {self.features.values!r}: "
                "'programs' starts from 'pcs', 'paper' from a matrix of genes."
            )
            raise TrainingError(msg)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        plain = dataclasses.asdict(self)
        plain["teacher"]["smoothing"] = list(self.teacher.smoothing)
        return plain


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        msg = f"{name} must be one of {', '.join(choices)}; found {value!r}."
        raise TrainingError(msg)


def _at_least(name: str, value: float, bound: float) -> None:
    if not value >= bound:
        msg = f"{name} must be at least {bound}; found {value}."
        raise TrainingError(msg)


def _above(name: str, value: float, bound: float) -> None:
    if not value > bound:
        msg = f"{name} must be above {bound}; found {value}."
        raise TrainingError(msg)
