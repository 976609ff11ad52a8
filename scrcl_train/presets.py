"""The named sets of settings, each constant with its source.

'default' is one set for all data, 'spatial' one for all tissue sections. 'paper' and 'paper:NAME' hold the
hyper-parameters published with the paper's code (arXiv 2512.10640), for reproduction; there the authors tuned each
data set against its labels.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from scrcl_infer.errors import TrainingError
from scrcl_train.config import FeatureConfig, GraphConfig, TeacherConfig, TrainConfig


class PaperRow(NamedTuple):
    """One row of the published table."""

    dim: int
    """Output width: the number of types, or 100 for the last three spatial sets."""
    n_neighbors: int
    n_hvgs: int
    learning_rate: float
    smoothing: tuple[int, int]
    dropout: float
    lambda_nca: float
    lambda_cvc: float
    temperature: float
    weight_decay: float


# Published with the paper's code, one tuned row per data set.
RNA_ROWS = {
    "Quake_Smart-seq2_Diaphragm": PaperRow(5, 15, 1500, 5e-4, (0, 0), 0.1, 100, 0.01, 1.0, 1e-3),
    "Quake_Smart-seq2_Lung": PaperRow(11, 15, 1000, 5e-4, (5, 0), 0.1, 100, 100, 1.0, 1e-3),
    "Quake_Smart-seq2_Trachea": PaperRow(4, 15, 500, 5e-3, (0, 0), 0.1, 10, 0.01, 1.0, 1e-3),
    "Quake_10x_Bladder": PaperRow(4, 15, 1000, 5e-3, (5, 0), 0.5, 10, 0.01, 0.1, 0.1),
    "Quake_10x_Limb_Muscle": PaperRow(6, 15, 1000, 1e-4, (5, 0), 0.3, 100, 0.1, 0.1, 0.1),
    "Quake_10x_Spleen": PaperRow(5, 15, 500, 5e-4, (0, 0), 0.1, 100, 1, 1.0, 1e-3),
    "li_tumor": PaperRow(6, 15, 2000, 1e-5, (0, 0), 0.3, 100, 10, 0.1, 0.1),
    "human_ESC": PaperRow(7, 15, 1000, 1e-5, (4, 2), 0.3, 10, 100, 0.1, 0.01),
    "Zeisel": PaperRow(9, 15, 1500, 5e-5, (4, 2), 0.3, 100, 0.01, 0.1, 0.1),
    "Baron_human": PaperRow(14, 15, 2000, 5e-5, (5, 0), 0.3, 0.01, 0.1, 0.1, 0.1),
}
_DLPFC = PaperRow(7, 15, 3000, 1e-4, (10, 8), 0.3, 100, 0.1, 0.1, 0.1)
SPATIAL_ROWS = {
    "DLPFC_151507": _DLPFC._replace(lambda_nca=200, lambda_cvc=1),
    "DLPFC_151508": _DLPFC._replace(lambda_nca=200, lambda_cvc=0.01),
    "DLPFC_151509": _DLPFC._replace(lambda_nca=50, lambda_cvc=0.05),
    "DLPFC_151510": _DLPFC._replace(lambda_nca=200, lambda_cvc=0.5),
    "DLPFC_151669": _DLPFC._replace(dim=5, lambda_cvc=0.01),
    "DLPFC_151670": _DLPFC._replace(dim=5),
    "DLPFC_151671": _DLPFC._replace(dim=5, smoothing=(1, 5)),
    "DLPFC_151672": _DLPFC._replace(dim=5, smoothing=(5, 7), lambda_cvc=0.01),
    **{f"DLPFC_{section}": _DLPFC._replace(n_neighbors=5) for section in (151673, 151674, 151675, 151676)},
    "Human_Breast_Cancer": PaperRow(100, 3, 1000, 1e-4, (5, 1), 0.3, 200, 1, 0.1, 0.1),
    "Mouse_Brain_Anterior": PaperRow(100, 3, 3000, 1e-4, (1, 0), 0.3, 100, 1, 0.1, 0.1),
    "Mouse_Embryo_E9.5": PaperRow(100, 3, 3000, 1e-4, (5, 1), 0.3, 200, 0.1, 0.1, 0.1),
}
# The fallback rows of the published table. Their width is the number of types, which is not known without labels:
# a middling number stands in for it, and `dim` can be set.
RNA_DEFAULT = PaperRow(10, 15, 2000, 1e-4, (0, 0), 0.3, 100, 1, 0.1, 0.1)
SPATIAL_DEFAULT = PaperRow(7, 15, 3000, 1e-4, (0, 0), 0.3, 100, 1, 0.1, 0.1)

PAPER_HIDDEN = 1500
PAPER_EPOCHS = 500
PAPER_GENE_NEIGHBORS = 5
PAPER_VOTERS = 50

# Six is a spot's number of neighbours on the hexagonal grid of Visium; the rest was settled on four sections
# (docs/decisions/0005-spatial-domains.md).
SPATIAL = TrainConfig(
    preset="spatial",
    features=FeatureConfig(n_hvgs=3000, hvg_flavor="moran"),
    graph=GraphConfig(space="spots", n_neighbors=6),
    teacher=TeacherConfig(smoothing=(5, 3)),
)


def _paper(name: str, row: PaperRow, *, spatial: bool) -> TrainConfig:
    """Spell out one published row."""
    return TrainConfig(
        preset=name,
        features=FeatureConfig(
            n_hvgs=row.n_hvgs,
            hvg_flavor="seurat_v3" if spatial else "seurat",
            values="scaled_uncentred" if spatial else "counts",
        ),
        graph=GraphConfig(
            space="spots" if spatial else "log_hvgs", n_neighbors=row.n_neighbors, gene_neighbors=PAPER_GENE_NEIGHBORS
        ),
        teacher=TeacherConfig(
            refinement="paper",
            hidden=PAPER_HIDDEN,
            dim=row.dim,
            smoothing=row.smoothing,
            dropout=row.dropout,
            temperature=row.temperature,
            lambda_nca=row.lambda_nca,
            lambda_cvc=row.lambda_cvc,
            learning_rate=row.learning_rate,
            weight_decay=row.weight_decay,
            epochs=PAPER_EPOCHS,
        ),
        n_voters=PAPER_VOTERS if spatial else 0,
    )


PRESETS: dict[str, TrainConfig] = {
    "default": TrainConfig(),
    "spatial": SPATIAL,
    "paper": _paper("paper", RNA_DEFAULT, spatial=False),
    "paper:spatial": _paper("paper:spatial", SPATIAL_DEFAULT, spatial=True),
    **{f"paper:{name}": _paper(f"paper:{name}", row, spatial=False) for name, row in RNA_ROWS.items()},
    **{f"paper:{name}": _paper(f"paper:{name}", row, spatial=True) for name, row in SPATIAL_ROWS.items()},
}
"""All presets by name."""


def get_preset(name: str, *, epochs: int | None = None) -> TrainConfig:
    """Return a preset's settings.

    Parameters
    ----------
    name
        A key of `PRESETS`.
    epochs
        Overrides the preset's number of epochs.

    Raises
    ------
    TrainingError
        There is no such preset; the text lists those there are.
    """
    if name not in PRESETS:
        msg = f"There is no preset {name!r}. Choose one of: {', '.join(PRESETS)}."
        raise TrainingError(msg)
    config = PRESETS[name]
    if epochs is None:
        return config
    return dataclasses.replace(config, teacher=dataclasses.replace(config.teacher, epochs=epochs))
