from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from sklearn.metrics import adjusted_rand_score, f1_score, roc_auc_score

from scrcl_infer.errors import InputError, OutputError
from scrcl_train.cli_after import evaluate_cli
from scrcl_train.evaluate_file import evaluate_file
from scrcl_train.reliability import compute_reliability
from scrcl_train.reliability_picture import draw_reliability


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


def test_a_type_that_the_model_knows_and_never_answers_is_missed_and_not_new(annotated: Path, tmp_path: Path) -> None:
    import anndata as ad

    adata = ad.read_h5ad(annotated)
    truth = adata.obs["cell_type"].astype(str).to_numpy()
    adata.obs["scrcl_cell_type"] = pd.Categorical(np.where(truth == "B", "A", truth))
    others = sorted(set(truth) - {"B"})
    for known, accuracy, novel in ((others, 1.0, (truth == "B").sum()), ([*others, "B"], (truth != "B").mean(), 0)):
        adata.uns["scrcl"] = {"cell_types": known}
        adata.write_h5ad(tmp_path / "answered.h5ad")
        types = evaluate_file(tmp_path / "answered.h5ad", "cell_type")["types"]
        assert types["accuracy"] == pytest.approx(accuracy)
        assert types["n_novel"] == novel
        assert types["novel_labels"] == ({"B": novel} if novel else {})
        assert ("note" in types) == bool(novel)


def test_labels_that_are_no_type_of_the_model_are_listed(
    annotated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import anndata as ad

    adata = ad.read_h5ad(annotated)
    truth = adata.obs["cell_type"].astype(str).to_numpy()
    strange = np.where(truth == "B", "B lymphocyte", truth).astype(object)
    strange[:2] = "Lymphocyte"
    adata.obs["label"] = strange
    for cell_types, said in (
        (sorted(set(truth)), "labels that are no type of the model"),
        ([], "labels that were never answered"),
    ):
        adata.uns["scrcl"] = {"cell_types": cell_types} if cell_types else {}
        adata.write_h5ad(tmp_path / "renamed.h5ad")
        evaluate_cli(tmp_path / "renamed.h5ad", "label", prefix="scrcl_")
        types = json.loads(capsys.readouterr().out)["types"]
        n = int((strange == "B lymphocyte").sum())
        assert types["novel_labels"] == {"B lymphocyte": n, "Lymphocyte": 2}
        assert types["note"].startswith(f"{said}: B lymphocyte ({n} cells), Lymphocyte (2 cells)")
        assert types["n_novel"] == n + 2
    adata.obs["label"] = pd.Categorical("the " + adata.obs["cell_type"].astype(str))
    adata.write_h5ad(tmp_path / "none.h5ad")
    types = evaluate_file(tmp_path / "none.h5ad", "label")["types"]
    assert "no label is among" in types["reason"]
    assert len(types["novel_labels"]) == len(set(truth))


def test_the_types_of_a_sorted_sample_are_scored(annotated: Path, tmp_path: Path) -> None:
    import anndata as ad

    adata = ad.read_h5ad(annotated)
    adata = adata[adata.obs["cell_type"] == "B"].copy()
    adata.write_h5ad(tmp_path / "sorted.h5ad")
    scores = evaluate_file(tmp_path / "sorted.h5ad", "cell_type")
    assert scores["types"]["accuracy"] == pytest.approx((adata.obs["scrcl_cell_type"] == "B").mean())
    assert scores["types"]["n_known"] == adata.n_obs
    assert scores["populations"] == {
        "reason": "no cell has another label than 'B': there are no groups to compare with"
    }
    adata.obs["cell_type"] = "unassigned"
    adata.write_h5ad(tmp_path / "none.h5ad")
    with pytest.raises(InputError, match="No cell has a label"):
        evaluate_file(tmp_path / "none.h5ad", "cell_type")


def test_a_coarser_level_is_compared_with_the_labels_of_its_name(annotated: Path, tmp_path: Path) -> None:
    import anndata as ad

    adata = ad.read_h5ad(annotated)
    rng = np.random.default_rng(2)
    lineage = np.where(adata.obs["cell_type"] == "B", "one", "other").astype(object)
    answers = np.where(rng.random(lineage.size) < 0.2, rng.permutation(lineage), lineage)
    sure = rng.random(lineage.size).astype(np.float32)
    adata.obs["lineage"] = lineage
    adata.obs["scrcl_lineage"] = answers
    adata.uns["scrcl"] = {"cell_types": sorted(set(adata.obs["cell_type"]))}
    adata.write_h5ad(tmp_path / "unsure.h5ad")  # without a probability it is no answer of a level
    assert evaluate_file(tmp_path / "unsure.h5ad", "lineage")["types"]["column"] == "scrcl_cell_type"
    adata.obs["scrcl_lineage_confidence"] = sure
    adata.write_h5ad(tmp_path / "levels.h5ad")
    types = evaluate_file(tmp_path / "levels.h5ad", "lineage")["types"]
    assert types["column"] == "scrcl_lineage"
    assert types["accuracy"] == pytest.approx((answers == lineage).mean())
    assert [row["n_cells"] for row in types["reliability"]] == [
        row.n_cells for row in compute_reliability(sure, answers == lineage)
    ]
    assert evaluate_file(tmp_path / "levels.h5ad", "cell_type")["types"]["column"] == "scrcl_cell_type"


def test_unknown_cells_are_told_by_the_score_that_rejects_them(annotated: Path, tmp_path: Path) -> None:
    import anndata as ad

    adata = ad.read_h5ad(annotated)
    rng = np.random.default_rng(1)
    truth = adata.obs["cell_type"].astype(str).to_numpy()
    novel = truth == "B"
    adata.obs["scrcl_cell_type"] = pd.Categorical(np.where(novel, "unknown", truth))
    by_confidence = roc_auc_score(novel, -adata.obs["scrcl_confidence"])
    strangeness = rng.normal(size=truth.size) + novel - 1
    for empty in ((), (3, 40, 41)):  # cells without counts have no strangeness, and are unknown before any other
        strangeness[list(empty)] = np.nan
        adata.obs["scrcl_strangeness"] = strangeness.astype(np.float32)
        adata.write_h5ad(tmp_path / "strange.h5ad")
        found = evaluate_file(tmp_path / "strange.h5ad", "cell_type")["types"]["unknown_auroc"]
        filled = np.where(np.isnan(strangeness), 1e6, strangeness)
        assert found == pytest.approx(roc_auc_score(novel, filled))
        assert abs(found - by_confidence) > 0.1
    del adata.obs["scrcl_strangeness"]
    adata.write_h5ad(tmp_path / "sure.h5ad")
    scores = evaluate_file(tmp_path / "sure.h5ad", "cell_type")["types"]
    assert scores["unknown_auroc"] == pytest.approx(by_confidence)


def test_the_command_prints_json_alone(annotated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate_cli(annotated, "cell_type", prefix="scrcl_")
    assert set(json.loads(capsys.readouterr().out)) == {"populations", "types"}


def test_a_bin_without_cells_is_null_in_the_json(
    tmp_path: Path, annotated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import anndata as ad

    adata = ad.read_h5ad(annotated)
    adata.obs["scrcl_confidence"] = np.float32(0.9)
    adata.write_h5ad(tmp_path / "sure.h5ad")
    evaluate_cli(tmp_path / "sure.h5ad", "cell_type", prefix="scrcl_")

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    rows = json.loads(capsys.readouterr().out, parse_constant=refuse)["types"]["reliability"]
    assert [row["accuracy"] is None for row in rows] == [row["n_cells"] == 0 for row in rows]
    assert sum(row["n_cells"] > 0 for row in rows) == 1


def test_a_file_without_answers_is_refused(tmp_path: Path, simulated: AnnData) -> None:
    path = tmp_path / "plain.h5ad"
    simulated.write_h5ad(path)
    with pytest.raises(InputError, match="scrcl_population"):
        evaluate_file(path, "cell_type")


def test_a_reliability_diagram_is_drawn_and_never_replaced(
    annotated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "reliability.png"
    evaluate_cli(annotated, "cell_type", prefix="scrcl_", reliability=picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads(capsys.readouterr().out)["types"]["calibration_error"] > 0
    with pytest.raises(OutputError, match="exists"):
        evaluate_cli(annotated, "cell_type", prefix="scrcl_", reliability=picture)
    with pytest.raises(OutputError, match=r"must end in one of \.png"):
        evaluate_cli(annotated, "cell_type", prefix="scrcl_", reliability=tmp_path / "x.txt")
    before = picture.read_bytes()
    evaluate_cli(annotated, "cell_type", prefix="scrcl_", reliability=picture, force=True)
    assert picture.read_bytes() == before


def test_the_diagram_shows_the_bins_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    seen: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *_, **__: seen.append(self))
    rows = compute_reliability([0.1, 0.9, 0.9, 0.9], [False, True, True, False], n_bins=5)
    draw_reliability(rows, 0.25, tmp_path / "r.png")
    upper, lower = seen[0].axes
    np.testing.assert_allclose(upper.lines[1].get_xydata(), [[0.1, 0.0], [0.9, 2 / 3]])
    assert [bar.get_height() for bar in lower.patches] == [1, 0, 0, 0, 3]
    assert "0.250" in upper.get_title()


def test_a_file_without_confidences_cannot_be_drawn(annotated: Path, tmp_path: Path) -> None:
    import anndata as ad

    adata = ad.read_h5ad(annotated)
    del adata.obs["scrcl_confidence"]
    adata.write_h5ad(tmp_path / "bare.h5ad")
    with pytest.raises(InputError, match="no confidences"):
        evaluate_cli(tmp_path / "bare.h5ad", "cell_type", reliability=tmp_path / "r.png")
