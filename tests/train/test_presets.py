"""The named settings: the published constants, to the letter."""

from __future__ import annotations

import pytest

from scrcl_infer.errors import TrainingError
from scrcl_train.presets import PRESETS, get_preset

# Read from the table published with the paper's code: width, k, genes, rate, smoothing, dropout, λ1, λ2, t, decay.
PUBLISHED = {
    "Quake_Smart-seq2_Diaphragm": (5, 15, 1500, 5e-4, (0, 0), 0.1, 100, 0.01, 1, 1e-3),
    "Quake_Smart-seq2_Lung": (11, 15, 1000, 5e-4, (5, 0), 0.1, 100, 100, 1, 1e-3),
    "Quake_Smart-seq2_Trachea": (4, 15, 500, 5e-3, (0, 0), 0.1, 10, 0.01, 1, 1e-3),
    "Quake_10x_Bladder": (4, 15, 1000, 5e-3, (5, 0), 0.5, 10, 0.01, 0.1, 0.1),
    "Quake_10x_Limb_Muscle": (6, 15, 1000, 1e-4, (5, 0), 0.3, 100, 0.1, 0.1, 0.1),
    "Quake_10x_Spleen": (5, 15, 500, 5e-4, (0, 0), 0.1, 100, 1, 1, 1e-3),
    "li_tumor": (6, 15, 2000, 1e-5, (0, 0), 0.3, 100, 10, 0.1, 0.1),
    "human_ESC": (7, 15, 1000, 1e-5, (4, 2), 0.3, 10, 100, 0.1, 0.01),
    "Zeisel": (9, 15, 1500, 5e-5, (4, 2), 0.3, 100, 0.01, 0.1, 0.1),
    "Baron_human": (14, 15, 2000, 5e-5, (5, 0), 0.3, 0.01, 0.1, 0.1, 0.1),
    "DLPFC_151507": (7, 15, 3000, 1e-4, (10, 8), 0.3, 200, 1, 0.1, 0.1),
    "DLPFC_151508": (7, 15, 3000, 1e-4, (10, 8), 0.3, 200, 0.01, 0.1, 0.1),
    "DLPFC_151509": (7, 15, 3000, 1e-4, (10, 8), 0.3, 50, 0.05, 0.1, 0.1),
    "DLPFC_151510": (7, 15, 3000, 1e-4, (10, 8), 0.3, 200, 0.5, 0.1, 0.1),
    "DLPFC_151669": (5, 15, 3000, 1e-4, (10, 8), 0.3, 100, 0.01, 0.1, 0.1),
    "DLPFC_151670": (5, 15, 3000, 1e-4, (10, 8), 0.3, 100, 0.1, 0.1, 0.1),
    "DLPFC_151671": (5, 15, 3000, 1e-4, (1, 5), 0.3, 100, 0.1, 0.1, 0.1),
    "DLPFC_151672": (5, 15, 3000, 1e-4, (5, 7), 0.3, 100, 0.01, 0.1, 0.1),
    "DLPFC_151673": (7, 5, 3000, 1e-4, (10, 8), 0.3, 100, 0.1, 0.1, 0.1),
    "DLPFC_151676": (7, 5, 3000, 1e-4, (10, 8), 0.3, 100, 0.1, 0.1, 0.1),
    "Human_Breast_Cancer": (100, 3, 1000, 1e-4, (5, 1), 0.3, 200, 1, 0.1, 0.1),
    "Mouse_Brain_Anterior": (100, 3, 3000, 1e-4, (1, 0), 0.3, 100, 1, 0.1, 0.1),
    "Mouse_Embryo_E9.5": (100, 3, 3000, 1e-4, (5, 1), 0.3, 200, 0.1, 0.1, 0.1),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_row_is_the_published_one(name: str) -> None:
    config = get_preset(f"paper:{name}")
    teacher = config.teacher
    found = (
        teacher.dim, config.graph.n_neighbors, config.features.n_hvgs, teacher.learning_rate, teacher.smoothing,
        teacher.dropout, teacher.lambda_nca, teacher.lambda_cvc, teacher.temperature, teacher.weight_decay,
    )  # fmt: skip
    assert found == PUBLISHED[name]
    assert (teacher.hidden, teacher.epochs, config.graph.gene_neighbors) == (1500, 500, 5)
    assert teacher.refinement == "paper"
    spatial = name.startswith(("DLPFC", "Human_Breast", "Mouse_"))
    assert config.graph.space == ("spots" if spatial else "log_hvgs")
    assert config.features.values == ("scaled_uncentred" if spatial else "counts")
    assert config.features.hvg_flavor == ("seurat_v3" if spatial else "seurat")


def test_paper_default_is_the_published_fallback() -> None:
    paper = get_preset("paper")
    assert (paper.features.values, paper.features.n_hvgs, paper.graph.n_neighbors) == ("counts", 2000, 15)
    assert (paper.teacher.learning_rate, paper.teacher.smoothing, paper.teacher.dropout) == (1e-4, (0, 0), 0.3)
    assert (paper.teacher.lambda_nca, paper.teacher.lambda_cvc, paper.teacher.temperature) == (100, 1, 0.1)
    assert paper.teacher.weight_decay == 0.1
    assert get_preset("paper:spatial").features.n_hvgs == 3000


def test_the_default_is_one_set_for_all_data() -> None:
    default = get_preset("default")
    features, graph, teacher = default.features, default.graph, default.teacher
    assert (features.n_hvgs, features.n_pcs, features.values, features.max_value) == (2000, 50, "pcs", 10)
    assert (graph.space, graph.n_neighbors, graph.n_graph_pcs, graph.gene_neighbors) == ("scaled_pcs", 15, 30, 10)
    assert (teacher.refinement, teacher.hidden, teacher.dim, teacher.smoothing) == ("programs", 128, 32, (1, 1))
    assert (teacher.lambda_nca, teacher.lambda_cvc, teacher.dropout, teacher.temperature) == (10, 1, 0.3, 1)
    assert (teacher.learning_rate, teacher.weight_decay, teacher.epochs) == (1e-3, 0, 40)


def test_every_preset_carries_its_name() -> None:
    assert all(config.preset == name for name, config in PRESETS.items())


def test_epochs_can_be_set_without_touching_the_preset() -> None:
    assert get_preset("paper", epochs=7).teacher.epochs == 7
    assert get_preset("paper").teacher.epochs == 500


def test_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(TrainingError, match=r"no preset 'papper'.*default, spatial, paper, paper:spatial"):
        get_preset("papper")
