"""The contract between training and assigning: what a bundle holds, as typed data. No I/O here.

`scrcl_infer.bundle` is the only reader and the only writer of these classes; `scrcl_train.export` fills them in.
Every class refuses unknown keys, so that a bundle is either understood as a whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import NamedTuple

from scrcl_infer.parts import Centroids, GeneGraph, Golden, HeldOutAnswers, Rejection
from scrcl_infer.record import Record

SCHEMA_VERSION = 7
OLDEST_SCHEMA_VERSION = 1
UNKNOWN = "unknown"
"""The answer for a cell that is rejected, in every column that names something."""


class FileNames(NamedTuple):
    """The files of a bundle folder."""

    manifest: str = "manifest.json"
    encoder: str = "encoder.onnx"
    centroids: str = "centroids.npz"
    gene_graph: str = "gene_graph.npz"
    golden: str = "golden.npz"
    rejection: str = "rejection.npz"
    """Absent in bundles of schema 1, not used in those of 2, and absent where no training cell could be held out."""
    held_out: str = "held_out.npz"
    """Absent in bundles of schemas 1 to 4, with a type head, and where no training cell could be held out."""
    card: str = "MODEL_CARD.md"


class TensorNames(NamedTuple):
    """The inputs and outputs of `encoder.onnx` (N cells, G genes, D dimensions, K populations, T types)."""

    counts: str = "counts"  # (N, G) float32, raw counts in the bundle's gene order, 0 where the query lacks the gene
    library_size: str = "library_size"  # (N, 1) float32, the cell's total over all its genes
    embedding: str = "embedding"  # (N, D) float32, unit rows
    log_posterior: str = "log_posterior"  # (N, K) float32, natural log
    map: str = "map"  # (N, 2) float32, place on the training UMAP
    components: str = "components"  # (N, Q + 2) float32, see `Rejection`; absent in schema 1
    rarity: str = "rarity"  # (N, C) float32 whole numbers, C classes, see `Rejection`; absent in schemas 1 to 5
    log_type_posterior: str = "log_type_posterior"  # (N, T) float32, only where types came from labels


FILES = FileNames()
TENSORS = TensorNames()


@dataclass(frozen=True)
class FileEntry(Record):
    """Checksum and size of one file of the bundle."""

    sha256: str
    n_bytes: int


@dataclass(frozen=True)
class GeneTable(Record):
    """The genes of the encoder's input, in order; all tuples have length G."""

    names: tuple[str, ...]
    """`var_names` of the training data."""
    symbols: tuple[str, ...]
    """Gene symbols, '' where the training data had none."""
    ensembl_ids: tuple[str, ...]
    """Ensembl ids without version, '' where the training data had none."""
    evidence: tuple[float, ...]
    """Share of the model's evidence that rests on each gene; non-negative, sums to 1."""
    species: str = UNKNOWN
    """Binomial name as guessed from the ids or symbols, e.g. 'Homo sapiens'."""
    min_overlap: float = 0.2
    """Weighted overlap below which a query is refused."""
    warn_overlap: float = 0.6
    """Weighted overlap below which a warning is given."""
    count_shares: tuple[float, ...] = ()
    """Mean share of a training cell's counts, over all genes of the data, that each gene holds; empty in bundles of
    schemas 1 to 6."""


@dataclass(frozen=True)
class SpatialSpec(Record):
    """How a section's expression is smoothed before the encoder (spatial bundles only).

    The encoder's inputs stay the same: it gets `expm1` of the smoothed expression as counts, and `target_sum` as
    library size of every spot (see `scrcl_infer.spatial.smooth_counts`). Golden rows hold such counts.
    """

    n_neighbors: int
    """Nearest spots of each spot in the graph."""
    n_steps: int
    """Smoothing steps over the symmetrically normalised graph."""


@dataclass(frozen=True)
class EncoderSpec(Record):
    """What `encoder.onnx` takes and gives."""

    opset: int
    dim: int
    """Width D of the embedding."""
    n_populations: int
    n_types: int
    """Columns T of the type head; 0 where types follow from populations alone."""
    target_sum: float = 10_000.0
    """Counts per cell that the graph normalises to, before log1p."""


@dataclass(frozen=True)
class Population(Record):
    """One population found in the training data; its index is its column in `log_posterior`."""

    name: str
    """'P1', 'P2', ... by decreasing size."""
    cell_type: str
    """Type name, equal to `name` where nothing named it."""
    n_cells: int
    purity: float | None = None
    """Share of the population's training cells that carry `cell_type` as label; None without labels."""


@dataclass(frozen=True)
class CellType(Record):
    """One type that can be assigned; its index is its column in `log_type_posterior`."""

    name: str
    n_cells: int
    ontology_id: str | None = None
    """Cell Ontology id, e.g. 'CL:0000236'; see `scrcl_infer.ontology` for the forms."""


@dataclass(frozen=True)
class LabelLevel(Record):
    """A coarser naming of the types; every type belongs to one name of it."""

    key: str
    """Column of `obs` that it was learned from, and of the answers."""
    names: tuple[str, ...]
    """(T,) the name that each cell type belongs to."""
    ontology_ids: tuple[str, ...]
    """(T,) the ontology id of that name, '' where it has none."""


@dataclass(frozen=True)
class Calibration(Record):
    """How outputs become confidences, and when a cell is unknown."""

    temperature: float  # divides the log posteriors before the softmax
    threshold: float
    """Cells whose best type has a lower probability are unknown; where there is no `Rejection`, they alone are."""
    kept_fraction: float
    """Share of the held-out training cells, as measured, that are not unknown."""
    expected_calibration_error: float | None = None
    """On held-out training cells, 15 equal-width bins; None without labels."""
    n_held_out: int = 0
    hidden_auroc: float | None = None
    """Of strangeness, classes hidden from a student against held-out cells; mean over classes, None where none was."""
    accuracy: float | None = None
    """Share of the held-out training cells whose best type is their label, or without labels that of the population
    that was found for them; None in bundles of schemas 1 to 4."""


@dataclass(frozen=True)
class Parity(Record):
    """How closely onnxruntime answered as torch when the encoder was exported."""

    max_abs_diff: float  # largest absolute difference of an embedding entry
    label_agreement: float
    """Share of rows with the same population and the same type; exports below 1 are refused."""
    n_cells: int


@dataclass(frozen=True)
class Provenance(Record):
    """Where the model comes from."""

    data_name: str
    data_sha256: str
    n_cells: int
    n_genes: int
    preset: str
    seed: int
    label_keys: tuple[str, ...]
    batch_key: str | None
    versions: dict[str, str]
    data_licence: str = UNKNOWN
    marker_table: str = ""
    """Name of the table of marker genes that named the populations; '' where none did."""
    renamed_from: str = ""
    """sha256 of the bundle that this one is a renamed copy of; '' for one that came from training."""


@dataclass(frozen=True)
class Manifest(Record):
    """`manifest.json`: all that is not an array."""

    schema_version: int
    name: str
    created_by: str
    """'scrcl X.Y.Z', from the installed package."""
    genes: GeneTable
    encoder: EncoderSpec
    populations: tuple[Population, ...]
    cell_types: tuple[CellType, ...]
    calibration: Calibration
    parity: Parity
    provenance: Provenance
    spatial: SpatialSpec | None = None
    levels: tuple[LabelLevel, ...] = ()
    """Coarser levels of the types, finer ones first; each nests in the one before. Needs a type head."""
    files: dict[str, FileEntry] = field(default_factory=dict)
    """Checksums of all files but the manifest; filled by the writer."""

    @property
    def contract_id(self) -> str:
        """Hash of genes, encoder and smoothing; also stamped into the ONNX file, so that the two cannot be mixed up."""
        parts = [self.genes.names, self.encoder.to_dict(), self.spatial.to_dict() if self.spatial else None]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory."""

    manifest: Manifest
    encoder: bytes
    """Serialised ONNX model."""
    centroids: Centroids
    gene_graph: GeneGraph
    golden: Golden
    card: str
    """Markdown text."""
    rejection: Rejection | None = None
    """None in bundles of schema 1."""
    held_out: HeldOutAnswers | None = None
    """What the calibration rests on, where types follow from populations: for new names (`scrcl_infer.tempering`)."""
