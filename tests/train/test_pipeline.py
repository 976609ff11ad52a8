"""The whole way on simulated cells whose types are known: what comes out must be right, stable and complete."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import anndata as ad
import numpy as np
import pytest
from anndata import AnnData
from sklearn.metrics import adjusted_rand_score

import scrcl_infer
from scrcl_infer.bundle import read_bundle
from scrcl_infer.errors import InputError, OutputError, TrainingError
from scrcl_infer.result import AssignOptions
from scrcl_infer.verify import verify_bundle
from scrcl_train import pipeline
from scrcl_train.data import read_labels, read_training_data
from scrcl_train.options import TrainOptions
from scrcl_train.pipeline import TrainResult, train
from scrcl_train.preflight import check_run
from scrcl_train.presets import get_preset
from scrcl_train.progress import TrainProgress
from scrcl_train.student import predict
from tests.student_case import make_targets, make_world, teach

OPTIONS = TrainOptions(config=get_preset("default", epochs=20), label_keys=("cell_type",), n_populations=6, seed=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("training")


@pytest.fixture(scope="module")
def cells(folder: Path, simulated: AnnData) -> Path:
    path = folder / "cells.h5ad"
    adata = simulated.copy()
    counts = adata.X.tolil()
    counts[5] = 0  # a cell without counts must not stop the run
    adata.X = counts.tocsr()
    adata.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def result(folder: Path, cells: Path) -> TrainResult:
    return train(cells, folder / "model", replace(OPTIONS, write_h5ad=folder / "found.h5ad"))


def test_the_bundle_verifies_and_says_where_it_comes_from(result: TrainResult, cells: Path) -> None:
    report = verify_bundle(result.folder)
    assert report.passed, report
    manifest = read_bundle(result.folder).manifest
    assert manifest.name == "model"
    assert manifest.provenance.data_name == cells.name
    assert manifest.provenance.n_cells == 399
    assert manifest.provenance.label_keys == ("cell_type",)
    assert manifest.parity.label_agreement == 1.0
    assert manifest.parity.max_abs_diff <= 1e-5
    assert {t.name for t in manifest.cell_types} == {"T naive", "T memory", "B", "Monocyte", "NK", "Platelet"}


def test_populations_found_without_labels_are_the_simulated_types(result: TrainResult, cells: Path) -> None:
    truth = read_labels(cells, "cell_type")[np.setdiff1d(np.arange(400), [5])]
    assert adjusted_rand_score(truth, result.found.populations.labels) > 0.7


def test_training_cells_are_assigned_their_labels(result: TrainResult, cells: Path) -> None:
    answers = scrcl_infer.load(result.folder).assign(cells)
    truth = read_labels(cells, "cell_type")
    known = answers.cell_type != "unknown"
    assert known[np.arange(400) != 5].mean() > 0.8, "the limit is that of cells not learned, which lie closer together"
    assert answers.cell_type[5] == "unknown"
    assert (answers.cell_type[known] == truth[known]).mean() > 0.95
    np.testing.assert_allclose(np.linalg.norm(answers.embedding[known], axis=1), 1, atol=1e-5)


def test_the_copy_holds_what_was_found_and_all_that_was_there(result: TrainResult, cells: Path, folder: Path) -> None:
    before, after = ad.read_h5ad(cells), ad.read_h5ad(folder / "found.h5ad")
    assert (before.X != after.X).nnz == 0
    assert set(before.obs) | {"scrcl_population", "scrcl_cell_type"} == set(after.obs)
    used = np.arange(400) != 5
    names = np.array([p.name for p in result.bundle.manifest.populations], dtype=object)
    assert list(after.obs["scrcl_population"][used]) == list(names[result.found.populations.labels])
    assert after.obs["scrcl_population"].iloc[5] == "unknown"
    answered = scrcl_infer.load(result.folder).assign(cells, options=AssignOptions(reject=False)).cell_type
    assert list(after.obs["scrcl_cell_type"]) == list(answered), "types are those of the model, not of populations"
    np.testing.assert_array_equal(after.obsm["X_scrcl"][used], result.found.embedding)
    assert after.obsm["X_scrcl_map"].shape == (400, 2)


def test_the_log_holds_every_epoch_and_the_settings(result: TrainResult) -> None:
    lines = (result.run_dir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 21))
    settings = json.loads((result.run_dir / "run.json").read_text())
    assert settings["seed"] == 0
    asked = {"label_keys": ["cell_type"], "batch_key": None, "section_key": None, "layer": None, "input_state": "auto"}
    asked["gene_column"] = None
    assert settings["asked"] == {**asked, "n_populations": OPTIONS.n_populations}


def test_the_same_seed_gives_the_same_bundle_to_the_byte(result: TrainResult, cells: Path, folder: Path) -> None:
    again = train(cells, folder / "again", replace(OPTIONS, name="model"))
    for path in sorted(result.folder.iterdir()):
        assert path.read_bytes() == (again.folder / path.name).read_bytes(), path.name


def test_labels_do_not_reach_what_is_found(result: TrainResult, cells: Path, folder: Path) -> None:
    blind = train(cells, folder / "blind", replace(OPTIONS, label_keys=()))
    np.testing.assert_array_equal(blind.found.populations.labels, result.found.populations.labels)
    np.testing.assert_array_equal(blind.found.embedding, result.found.embedding)
    assert [t.name for t in blind.bundle.manifest.cell_types] == [f"P{i}" for i in range(1, 7)]


def test_a_run_folder_is_replaced_only_with_force(cells: Path, result: TrainResult, tmp_path: Path) -> None:
    """Another seed is another run: refused with a way out, done with `force`."""
    other = replace(OPTIONS, run_dir=result.run_dir, seed=1)
    with pytest.raises(TrainingError, match="--force"):
        check_run(cells, tmp_path / "new", other)
    kept = (result.run_dir / "metrics.jsonl").read_text()
    assert check_run(cells, tmp_path / "new", replace(OPTIONS, run_dir=result.run_dir, resume=True)) == result.run_dir
    assert (result.run_dir / "metrics.jsonl").read_text() == kept


def test_force_clears_the_files_of_an_earlier_run_and_no_others(cells: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in ("run.json", "metrics.jsonl", "notes.txt"):
        (folder / name).write_text("{}")
    check_run(cells, tmp_path / "new", replace(OPTIONS, run_dir=folder, force=True))
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_resuming_nothing_is_said(cells: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check_run(cells, tmp_path / "new", replace(OPTIONS, resume=True))
    assert "nothing to resume" in caplog.text


@pytest.mark.parametrize(("asked", "there", "n_reads"), [(401, 400, 0), (400, 399, 1)])
def test_more_populations_than_cells_are_refused_before_the_teacher(
    cells: Path, tmp_path: Path, *, monkeypatch: pytest.MonkeyPatch, asked: int, there: int, n_reads: int
) -> None:
    """The file has 400 rows, of which 399 hold counts: 401 are refused unread, 400 as soon as it is read."""
    reads = Mock(wraps=read_training_data)
    monkeypatch.setattr(pipeline, "read_training_data", reads)
    with pytest.raises(TrainingError, match=rf"{asked} populations were asked for; with {there} cells"):
        train(cells, tmp_path / "new", replace(OPTIONS, n_populations=asked))
    assert reads.call_count == n_reads
    assert not (tmp_path / "new.run").exists()


def test_outputs_are_refused_before_any_work(cells: Path, result: TrainResult, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="--force"):
        train(cells, result.folder, OPTIONS)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(OutputError, match="not a bundle"):
        train(cells, tmp_path / "other", replace(OPTIONS, force=True))
    with pytest.raises(OutputError, match="is an input"):
        train(cells, tmp_path / "new", replace(OPTIONS, write_h5ad=cells))
    with pytest.raises(InputError, match="no file"):
        train(tmp_path / "missing.h5ad", tmp_path / "new", OPTIONS)
    with pytest.raises(InputError, match=r"no file .*table\.csv"):
        train(cells, tmp_path / "new", replace(OPTIONS, gene_ids=tmp_path / "table.csv"))
    assert not (tmp_path / "new.run").exists()


def test_a_student_that_did_not_learn_the_populations_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    targets = make_targets(make_world(), labelled=False)
    good = predict(teach(labelled=False)[1], make_world().counts, make_world().library_size)
    pipeline._check_learned(good, targets, TrainProgress())
    assert not caplog.text
    pipeline._check_learned(replace(good, log_posterior=good.log_posterior[::-1]), targets, TrainProgress())
    assert "do not stand for these. Ask for fewer (-k)" in caplog.text
    assert "--input-state" in caplog.text


def test_with_labels_the_student_is_judged_by_the_types_that_it_answers(caplog: pytest.LogCaptureFixture) -> None:
    world, student = teach(labelled=True)
    targets = make_targets(world, labelled=True)
    good = predict(student, world.counts, world.library_size)
    assert good.log_type_posterior is not None
    pipeline._check_learned(replace(good, log_posterior=good.log_posterior[::-1]), targets, TrainProgress())
    assert not caplog.text
    pipeline._check_learned(replace(good, log_type_posterior=good.log_type_posterior[::-1]), targets, TrainProgress())
    assert "of those with a label their type: its answers do not stand for these. Check what" in caplog.text
