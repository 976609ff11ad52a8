"""What goes into an assignment and what comes out: frozen options and results, no behaviour but how they are shown."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.contract import UNKNOWN
from scrcl_infer.errors import InputError

InputState = Literal["auto", "counts", "log1p10k"]
"""What the matrix holds: raw counts, or log1p of counts per ten thousand; 'auto' looks."""
Totals = Literal["summed", "assumed", "guessed", "told"]
"""'summed': from its values. 'assumed': logarithms of a part of the genes, taken to have been scaled to a usual total
that fits. 'guessed': the base of the logarithms, too, is a usual one that fits. 'told': by the user."""


@dataclass(frozen=True)
class AssignOptions:
    """How to read a query and how to answer."""

    layer: str | None = None
    """'X', 'raw', or the name of a layer; None looks for counts in all of them."""
    input_state: InputState = "auto"
    gene_column: str | None = None
    """Column of `var` with symbols or Ensembl ids; None takes whichever column or index matches best."""
    min_overlap: float | None = None
    """Weighted gene overlap below which the query is refused; None takes the bundle's own."""
    section: str | None = None
    """Column of `obs` that tells sections of tissue apart, for spatial bundles; None: all spots are one section."""
    reject: bool = True
    """Answer 'unknown' for cells that the model does not know."""
    vote: bool = False
    """Smooth types over the query's own embedding; a cell's answer then depends on the file that it is in."""
    explain: bool = False
    """Find the genes that drove each type; they go into the summary's `extra['explanation']`."""
    threads: int | None = None
    """None takes the CPUs that this process may use."""
    block_size: int = 2048
    """Cells held in memory at a time; the answer does not depend on it."""

    def __post_init__(self) -> None:
        """Refuse what means nothing (InputError)."""
        wrong = {
            "input_state": self.input_state not in get_args(InputState),
            "min_overlap": self.min_overlap is not None and not 0 <= self.min_overlap <= 1,
            "threads": self.threads is not None and self.threads < 1,
            "block_size": self.block_size < 1,
        }
        expected = {
            "input_state": f"one of {', '.join(get_args(InputState))}",
            "min_overlap": "a share from 0 to 1",
            "threads": "1 or more, or None",
            "block_size": "1 or more",
        }
        for name in (name for name, is_wrong in wrong.items() if is_wrong):
            msg = f"{name} is {getattr(self, name)!r}, expected {expected[name]}."
            raise InputError(msg)


@dataclass(frozen=True)
class AssignedBlock:
    """The answers for a run of consecutive cells (N cells)."""

    start: int
    """Index of the first cell in the file."""
    population: NDArray[np.int32]
    """(N,) index into the manifest's populations; -1 for a cell without counts in the model's genes."""
    cell_type: NDArray[np.int32]
    """(N,) index into the manifest's cell types; -1 is unknown: too strange, too improbable, or without counts."""
    confidence: NDArray[np.float32]
    """(N,) calibrated probability of the best type; 0 for a cell without counts."""
    margin: NDArray[np.float32]
    """(N,) calibrated probability of the best type minus that of the second."""
    embedding: NDArray[np.float32]
    """(N, D) unit rows; zeros for a cell without counts."""
    map: NDArray[np.float32]
    """(N, 2) place on the training UMAP; NaN for a cell without counts."""
    level_confidence: NDArray[np.float32] = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    """(N, L) of each of the bundle's L coarser levels: calibrated probability of the name that the best type belongs
    to, 0 for a cell without counts; of no size where L is 0."""
    strangeness: NDArray[np.float32] | None = None
    """(N,) how far the cell lies outside of what the model knows: above 0 it is unknown; NaN for a cell without counts.
    None for bundles that reject by the probability."""


@dataclass(frozen=True)
class GeneReport:
    """How the query's genes met the model's."""

    n_model: int
    n_found: int
    weighted_overlap: float
    """Share of the model's evidence that rests on the genes found, in [0, 1]."""
    matched_by: str
    """Which names of the query met which names of the model, e.g. 'var_names as symbols'."""
    n_summed: int
    """Query columns that were added to another column of the same gene."""
    n_dropped_features: int
    """Query columns left out because their feature type is not gene expression."""
    missing_top: tuple[str, ...]
    """The missing genes that carry most evidence, at most 20."""
    species: str = UNKNOWN
    """Binomial name that the query's gene names point to."""
    model_species: str = UNKNOWN
    n_query: int = 0
    """Genes of the query; 0 where nobody counted them."""
    count_share: float | None = None
    """Share of a cell's counts that the genes found usually hold, where totals are estimated from it; None where the
    query's own totals are used."""
    stand_ins: tuple[str, ...] = ()
    """The missing genes that nearly every cell has, for which their usual share stands in."""


@dataclass(frozen=True)
class MatrixReport:
    """Which matrix of the query was read, as what, and why."""

    where: str
    """'X', 'layers/NAME' or 'raw/X'."""
    state: Literal["counts", "log1p10k"]
    reason: str
    """One sentence for the user."""
    target_sum: float | None = None
    """Total that each cell was scaled to before the logarithm of 1 + x was taken; None where each has its own."""
    log_base: float = math.e
    """Base of that logarithm."""
    totals: Totals = "summed"
    """Where a cell's total over all genes comes from."""


@dataclass(frozen=True)
class RejectionReport:
    """What makes a cell unknown, and of how many cells what did; the counts add up to the unknown cells."""

    reject: bool
    """Whether cells with counts were rejected at all."""
    rejected_by: Literal["strangeness or probability", "probability"]
    threshold: float
    """Calibrated probability of the best type below which a cell is unknown."""
    temperature: float
    """That the posterior was calibrated with."""
    n_unknown_strange: int
    """Cells whose strangeness is above 0, whatever their probability."""
    n_unknown_improbable: int
    """Cells whose probability alone is too low; with a vote, the probability before it."""
    n_unknown_empty: int
    """Cells without counts in the model's genes."""


@dataclass(frozen=True)
class Sketch:
    """What a picture of the answers needs: a histogram, and some cells in their places."""

    confidence: tuple[int, ...]
    """Cells whose confidence lies in each of 20 equal parts of [0, 1]."""
    places: NDArray[np.float32]
    """(m, 2) places on the training UMAP of m cells, every so-many-th of the file; NaN without counts."""
    cell_type: NDArray[np.int32]
    """(m,) their types, index into `types`; -1 is unknown."""
    types: tuple[str, ...]
    """Names of the model's types."""


@dataclass(frozen=True)
class Summary:
    """What is said about a whole file; the body of `report.json`."""

    n_cells: int
    n_unknown: int
    n_empty: int
    """Cells without counts in the model's genes; always unknown."""
    cells_per_type: dict[str, int]
    mean_confidence: float
    matrix: MatrixReport
    genes: GeneReport
    rejection: RejectionReport
    warnings: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    """Versions, checksums, timings."""
    sketch: Sketch | None = None
    """For the pictures of `report.html`."""


@dataclass(frozen=True)
class Assignment:
    """All answers for a file or an AnnData, in memory (n cells)."""

    obs_names: NDArray[np.object_]
    cell_type: NDArray[np.object_]
    """(n,) names, 'unknown' where rejected."""
    population: NDArray[np.object_]
    confidence: NDArray[np.float32]
    margin: NDArray[np.float32]
    embedding: NDArray[np.float32]
    map: NDArray[np.float32]
    summary: Summary
    levels: dict[str, NDArray[np.object_]] = field(default_factory=dict)
    """Key of each coarser level to (n,) names, 'unknown' where the type is."""
    level_confidence: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """Key of each coarser level to (n,) calibrated probabilities of the name that the best type belongs to."""
    ontology_id: NDArray[np.object_] | None = None
    """(n,) ontology ids, 'unknown' where the type is or has none; None where the bundle has no ids."""
    strangeness: NDArray[np.float32] | None = None
    """(n,) how far each cell lies outside of what the model knows: above 0 it is unknown; NaN for a cell without
    counts. None for bundles that reject by the probability alone."""

    def __repr__(self) -> str:
        """One line; the arrays would fill pages."""
        n_types, unknown = len(set(self.cell_type) - {UNKNOWN}), int((self.cell_type == UNKNOWN).sum())
        model = self.summary.extra.get("model", {}).get("name", UNKNOWN)
        return f"Assignment({len(self.cell_type):,} cells, {n_types:,} types, {unknown:,} unknown, model '{model}')"
