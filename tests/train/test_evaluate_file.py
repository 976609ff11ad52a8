from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn.metrics import adjusted_rand_score, f1_score

from scrcl_infer.errors import InputError
from scrcl_train.cli_after import evaluate_cli
from scrcl_train.evaluate_file import evaluate_file


@pytest.fixture
def annotated(tmp_path: Path, simulated: AnnData) -> Path:
    """Simulated cells with answers of which one in ten is wrong and some are unknown."""
    adata = simulated.copy()
    rng = np.random.default_rng(0)
    truth = adata.obs["cell_type"].astype(str).to_numpy()
    answers = np.where(rng.random(truth.size) < 0.1, rng.permutation(truth), truth).astype(object)
    answers[:10] = "unknown"
    adata.obs["scrcl_cell_type"] = pd.Categorical(answers)
    adata.obs["scrcl_population"] = pd.Categorical(np.where(truth == "B", "P1", "P2"))
    adata.obs["scrcl_confidence"] = rng.random(truth.size).astype(np.float32)
    path = tmp_path / "annotated.h5ad"
    adata.write_h5ad(path)
    return path


def test_scores_are_those_of_scikit_learn(annotated: Path, simulated: AnnData) -> None:
    import anndata as ad

    scores = evaluate_file(annotated, "cell_type")
    obs = ad.read_h5ad(annotated).obs.astype(str)
    assert scores["populations"]["ari"] == pytest.approx(adjusted_rand_score(obs["cell_type"], obs["scrcl_population"]))
    assert scores["types"]["accuracy"] == pytest.approx((obs["cell_type"] == obs["scrcl_cell_type"]).mean())
    expected = f1_score(
        obs["cell_type"], obs["scrcl_cell_type"], labels=sorted(set(obs["cell_type"])), average="macro", zero_division=0
    )
    assert scores["types"]["macro_f1"] == pytest.approx(expected)


def test_the_command_prints_json_alone(annotated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate_cli(annotated, "cell_type", prefix="scrcl_")
    assert set(json.loads(capsys.readouterr().out)) == {"populations", "types"}


def test_a_file_without_answers_is_refused(tmp_path: Path, simulated: AnnData) -> None:
    path = tmp_path / "plain.h5ad"
    simulated.write_h5ad(path)
    with pytest.raises(InputError, match="scrcl_population"):
        evaluate_file(path, "cell_type")
