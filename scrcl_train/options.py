"""What a training run is asked for, beyond its settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from scrcl_infer.result import InputState
from scrcl_train.config import TrainConfig


@dataclass(frozen=True)
class TrainOptions:
    """What to train on and how."""

    config: TrainConfig = field(default_factory=TrainConfig)
    label_keys: tuple[str, ...] = ()
    """Columns of `obs` with labels, the finest first: it names populations and teaches the type head, the others become
    coarser levels of the answers. Never seen by the teacher."""
    markers: Path | None = None
    """Table of marker genes that names populations; see `scrcl_train.marker_names`."""
    ontology_ids: Path | None = None
    """Table of names and ontology ids; None looks for ids in the data, where it has labels."""
    batch_key: str | None = None
    section_key: str | None = None
    """Column of `obs` that tells tissue sections apart, for spatial settings; None takes all spots for one section."""
    n_populations: int | None = None
    """None estimates the number."""
    layer: str | None = None
    input_state: InputState = "auto"
    """What the matrix holds; 'auto' looks."""
    seed: int = 0
    device: str = "auto"
    name: str | None = None
    """Name of the model; None takes the bundle folder's."""
    data_licence: str = "unknown"
    run_dir: Path | None = None
    """Settings, log and checkpoints; None takes 'BUNDLE.run' beside the bundle."""
    resume: bool = False
    force: bool = False
    """Replace an existing bundle."""
    write_h5ad: Path | None = None
    """Copy of the training data with populations, types and the teacher's embedding."""
    gene_column: str | None = None
    """Column of `var` with the genes' names; None takes the index."""
    gene_ids: Path | None = None
    """Table of Ensembl ids and symbols that completes the genes' names; see `scrcl_train.data.add_gene_ids`."""
    card_notes: Path | None = None
    """Markdown for the model card, e.g. figures on independent data."""
