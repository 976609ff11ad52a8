"""`scrcl_train.write`: the copy holds what was found, and nothing of another model's answers."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scrcl_infer.contract import LabelLevel, Manifest
from scrcl_infer.errors import OutputError
from scrcl_infer.pipeline import Model
from scrcl_infer.target import Target
from scrcl_train.write import TrainingAnswers, write_training_h5ad
from tests.make_bundle import tiny_bundle

N = 60


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    levels = (LabelLevel("broad", ("x", "y", "x", "y"), ("", "", "", "")),)
    return replace(tiny_bundle().manifest, levels=levels)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(tiny_bundle(), sha256="abc", threads=1)


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    counts = np.random.default_rng(0).poisson(1.0, (N, 40)).astype(np.float32)
    obs, var = (pd.DataFrame(index=[f"{what}{i}" for i in range(n)]) for what, n in (("cell", N), ("GENE", 40)))
    obs["scrcl_notes"] = "mine"
    ad.AnnData(counts, obs=obs, var=var).write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def found(n: int = N) -> TrainingAnswers:
    rng = np.random.default_rng(1)
    return TrainingAnswers(
        rows=np.arange(n),
        populations=rng.integers(0, 5, n),
        types=rng.integers(0, 4, n),
        embedding=rng.random((n, 8), dtype=np.float32),
        map=rng.random((n, 2), dtype=np.float32),
    )


def test_confidences_of_an_earlier_model_are_left_out_and_said(
    cells: Path, model: Model, manifest: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model.assign_file(cells, Target(tmp_path / "typed.h5ad"))
    with caplog.at_level(logging.WARNING, "scrcl_train"):
        write_training_h5ad(tmp_path / "typed.h5ad", tmp_path / "found.h5ad", found(), manifest)
    obs = ad.read_h5ad(tmp_path / "found.h5ad").obs
    assert set(obs) == {"scrcl_notes", "scrcl_population", "scrcl_cell_type", "scrcl_broad"}
    (message,) = caplog.messages
    assert message.endswith("obs/scrcl_confidence, obs/scrcl_margin, obs/scrcl_strangeness.")


def test_levels_of_the_training_copy_do_not_stay_beside_new_answers(
    cells: Path, model: Model, manifest: Manifest, tmp_path: Path
) -> None:
    copy, typed = tmp_path / "found.h5ad", tmp_path / "typed.h5ad"
    write_training_h5ad(cells, copy, found(), manifest)
    with pytest.raises(OutputError, match=r"obs\['scrcl_cell_type'\], .*obsm\['X_scrcl'\], .*--force"):
        model.assign_file(copy, Target(typed))  # what training found is lost only where it is asked for
    model.assign_file(copy, Target(typed, force=True))
    before, after = set(ad.read_h5ad(copy).obs), set(ad.read_h5ad(typed).obs)
    assert before - after == {"scrcl_broad"}
    assert after - before == {"scrcl_confidence", "scrcl_margin", "scrcl_strangeness"}
