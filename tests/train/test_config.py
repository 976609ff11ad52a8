"""Settings refuse what cannot be meant, and turn into plain JSON."""

from __future__ import annotations

import dataclasses
import json

import pytest

from scrcl_infer.errors import TrainingError
from scrcl_train.config import FeatureConfig, GraphConfig, TeacherConfig, TrainConfig


@pytest.mark.parametrize(
    ("make", "settings", "text"),
    [
        (FeatureConfig, {"values": "raw"}, "values must be one of counts, scaled_uncentred, pcs"),
        (FeatureConfig, {"hvg_flavor": "cell_ranger"}, "hvg_flavor must be one of seurat"),
        (FeatureConfig, {"n_hvgs": 1}, "n_hvgs must be at least 2; found 1"),
        (FeatureConfig, {"n_pcs": 1}, "n_pcs must be at least 2; found 1"),
        (FeatureConfig, {"max_value": 0.0}, "max_value must be above 0"),
        (GraphConfig, {"space": "umap"}, "space must be one of scaled_pcs"),
        (GraphConfig, {"n_neighbors": 0}, "n_neighbors must be at least 1; found 0"),
        (
            TrainConfig,
            {"features": FeatureConfig(values="counts"), "graph": GraphConfig(space="log_hvgs")},
            "'programs' does not go with the input 'counts'",
        ),
        (TrainConfig, {"features": FeatureConfig(values="counts")}, "'scaled_pcs' needs the input 'pcs'"),
        (TrainConfig, {"teacher": TeacherConfig(refinement="paper")}, "'paper' does not go with the input 'pcs'"),
        (TeacherConfig, {"refinement": "none"}, "refinement must be one of paper, programs"),
        (TeacherConfig, {"epochs": 0}, "epochs must be at least 1"),
        (TeacherConfig, {"temperature": 0.0}, "temperature must be above 0"),
        (TeacherConfig, {"learning_rate": float("nan")}, "learning_rate must be above 0; found nan"),
        (TeacherConfig, {"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        (TeacherConfig, {"smoothing": (1, -1)}, "smoothing must be two numbers of steps"),
        (TeacherConfig, {"lambda_cvc": -1.0}, "lambda_cvc must be at least 0"),
    ],
)
def test_values_out_of_range_are_refused(make: type, settings: dict[str, object], text: str) -> None:
    with pytest.raises(TrainingError, match=text):
        make(**settings)


def test_plain_data_survives_json() -> None:
    config = TrainConfig(preset="x", teacher=TeacherConfig(smoothing=(5, 0)))
    plain = config.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["teacher"]["smoothing"] == [5, 0]
    assert plain["features"]["n_hvgs"] == config.features.n_hvgs


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().preset = "y"  # type: ignore[misc]
