"""The training loop: repeatable, resumable bit for bit, blind to labels."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from scrcl_infer.errors import OutputError, TrainingError
from scrcl_train import features as features_module
from scrcl_train import trainer
from scrcl_train.components import Components, Neighbors
from scrcl_train.config import FeatureConfig, GraphConfig, TeacherConfig, TrainConfig
from scrcl_train.features import Features
from scrcl_train.graphs import gene_graph, gene_program_graph, knn_graph, smooth
from scrcl_train.trainer import EpochLog, Teacher, fit, place_inputs

ARRAYS = ("emb_1", "emb_2", "z_1", "z_2", "gene_embedding")


@pytest.fixture(scope="module")
def small() -> Features:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 20)) * 2
    inputs = (centres[rng.integers(0, 3, 60)] + rng.normal(size=(60, 20))).astype(np.float32)
    return Features(
        hvgs=np.arange(20),
        inputs=inputs,
        mean=inputs.mean(0),
        sd=inputs.std(0),
        cell_graph=knn_graph(inputs, n_neighbors=5, cosine=True),
        gene_graph=gene_graph(inputs, n_neighbors=3),
    )


def make_config(**teacher: object) -> TrainConfig:
    settings = {"refinement": "paper", "hidden": 16, "dim": 4, "epochs": 25, "temperature": 0.1, **teacher}
    paper = settings["refinement"] == "paper"
    return TrainConfig(
        features=FeatureConfig(values="counts" if paper else "pcs"),
        graph=GraphConfig(space="log_hvgs" if paper else "scaled_pcs"),
        teacher=TeacherConfig(**settings),  # type: ignore[arg-type]
    )


def same(first: Teacher, second: Teacher) -> bool:
    return all(getattr(first, name).tobytes() == getattr(second, name).tobytes() for name in ARRAYS)


def losses(teacher: Teacher) -> list[float]:
    return [log.loss for log in teacher.history]


def test_same_seed_same_bytes_other_seed_other_bytes(small: Features) -> None:
    first, second, other = (fit(small, make_config(), seed=seed, device="cpu") for seed in (4, 4, 5))
    assert same(first, second)
    assert losses(first) == losses(second)
    assert not same(first, other)


def test_training_lowers_the_objective(small: Features) -> None:
    teacher = fit(small, make_config(epochs=60), device="cpu")
    assert np.mean(losses(teacher)[-5:]) < 0.7 * np.mean(losses(teacher)[:5])
    assert teacher.emb_1.shape == teacher.emb_2.shape == (60, 16)
    assert teacher.z_1.shape == teacher.z_2.shape == (60, 4)
    assert teacher.gene_embedding.shape == (20, 4)
    assert all(getattr(teacher, name).dtype == np.float32 for name in ARRAYS)


class _StopError(Exception):
    pass


@pytest.mark.parametrize("stop_after", [10, 13])
def test_resumed_run_is_the_uninterrupted_one_bit_for_bit(small: Features, tmp_path: Path, stop_after: int) -> None:
    whole = fit(small, make_config(), seed=2, device="cpu", run_dir=tmp_path / "whole")

    def interrupt(log: EpochLog) -> None:
        if log.epoch == stop_after:
            raise _StopError

    with pytest.raises(_StopError):
        fit(small, make_config(), seed=2, device="cpu", run_dir=tmp_path / "cut", on_epoch=interrupt)
    torch.rand(7)  # whatever happens in between must not matter
    resumed = fit(small, make_config(), seed=2, device="cpu", run_dir=tmp_path / "cut", resume=True)
    assert same(whole, resumed)
    assert losses(whole) == losses(resumed)
    lines = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, 26))
    assert [json.loads(line)["loss"] for line in lines] == losses(whole)


def test_finished_run_can_be_lengthened(small: Features, tmp_path: Path) -> None:
    whole = fit(small, make_config(epochs=20), device="cpu")
    fit(small, make_config(epochs=12), device="cpu", run_dir=tmp_path / "run")
    longer = fit(small, make_config(epochs=20), device="cpu", run_dir=tmp_path / "run", resume=True)
    assert same(whole, longer)
    with pytest.raises(TrainingError, match="at epoch 20, past the 15"):
        fit(small, make_config(epochs=15), device="cpu", run_dir=tmp_path / "run", resume=True)


def test_run_of_other_settings_is_refused_by_name(small: Features, tmp_path: Path) -> None:
    fit(small, make_config(epochs=1), device="cpu", run_dir=tmp_path)
    with pytest.raises(TrainingError, match=r"config.teacher.hidden \(there 16, asked 8\)"):
        fit(small, make_config(epochs=1, hidden=8), device="cpu", run_dir=tmp_path, resume=True)
    with pytest.raises(TrainingError, match=r"seed \(there 0, asked 9\)"):
        fit(small, make_config(epochs=1), seed=9, device="cpu", run_dir=tmp_path, resume=True)
    other = dataclasses.replace(small, inputs=small.inputs + 1)
    with pytest.raises(TrainingError, match="data"):
        fit(other, make_config(epochs=1), device="cpu", run_dir=tmp_path, resume=True)
    with pytest.raises(OutputError, match="already holds a run"):
        fit(small, make_config(epochs=1), device="cpu", run_dir=tmp_path)


def test_divergence_names_the_epoch(small: Features) -> None:
    broken = dataclasses.replace(small, inputs=np.full_like(small.inputs, np.inf))
    with pytest.raises(TrainingError, match=r"no longer finite at epoch 1 .*Lower the learning rate"):
        fit(broken, make_config(), device="cpu")


def test_no_way_in_for_labels() -> None:
    """Nothing that training is called with can carry labels: the settings and features have known, fixed fields."""
    assert list(inspect.signature(fit).parameters) == [
        "features", "config", "seed", "device", "run_dir", "resume", "on_epoch",
    ]  # fmt: skip
    assert [field.name for field in dataclasses.fields(Features)] == [
        "hvgs", "inputs", "mean", "sd", "cell_graph", "gene_graph", "components", "neighbors",
    ]  # fmt: skip
    assert [field.name for field in dataclasses.fields(Components)] == ["scores", "loadings", "support", "noise"]
    assert Neighbors._fields == ("plain", "refined")
    assert list(inspect.signature(features_module.prepare_features).parameters) == [
        "counts", "config", "library_size", "batch", "spatial", "section", "seed",
    ]  # fmt: skip


def test_views_see_their_own_smoothing(small: Features) -> None:
    config = TeacherConfig(smoothing=(3, 1))
    inputs = place_inputs(small, config, dtype=torch.float64)
    wide = small.inputs.astype(float)
    np.testing.assert_allclose(inputs.smoothed, smooth(wide, small.cell_graph, steps=3))
    np.testing.assert_allclose(inputs.propagated, smooth(wide, small.cell_graph, steps=2))


def test_sparse_and_dense_inputs_train_alike(small: Features) -> None:
    sparse = dataclasses.replace(small, inputs=sp.csr_matrix(small.inputs))
    config = make_config(epochs=2)
    assert same(fit(small, config, device="cpu"), fit(sparse, config, device="cpu"))


def test_callers_random_state_is_left_alone(small: Features) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    fit(small, make_config(epochs=2), device="cpu")
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_without_a_run_folder_nothing_is_written(
    small: Features, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fit(small, make_config(epochs=11), device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_run_folder_says_what_was_run(small: Features, tmp_path: Path) -> None:
    config = dataclasses.replace(
        make_config(epochs=2), preset="mine", graph=GraphConfig(space="log_hvgs", n_neighbors=7)
    )
    seen: list[EpochLog] = []
    fit(small, config, seed=3, device="cpu", run_dir=tmp_path, on_epoch=seen.append)
    settings = json.loads((tmp_path / "run.json").read_text())
    assert settings["config"]["preset"] == "mine"
    assert settings["config"]["graph"]["n_neighbors"] == 7
    assert (settings["seed"], settings["device"]) == (3, "cpu")
    assert settings["versions"]["torch"] == torch.__version__
    assert [log.epoch for log in seen] == [1, 2]
    config_ = config.teacher
    assert seen[0].loss == pytest.approx(
        seen[0].eda + config_.lambda_nca * seen[0].nca + config_.lambda_cvc * seen[0].cvc, rel=1e-6
    )
    assert trainer.CHECKPOINT_EVERY > 1  # so that the last epoch's checkpoint is the one of the end
    assert (tmp_path / "checkpoint.pt").exists()


def test_gene_programs_train_repeatably_and_keep_the_rank_of_z(small: Features) -> None:
    loadings, support = np.eye(20, 5, dtype=np.float32), np.ones(5, dtype=np.float32)
    components = Components(small.inputs[:, :5], loadings, support, noise=0.0)
    profiles = components.loadings * components.scores.std(0)
    on_pcs = dataclasses.replace(
        small,
        inputs=components.scores,
        gene_graph=gene_program_graph(profiles + 0.01, n_neighbors=3),
        components=components,
    )
    config = make_config(refinement="programs", temperature=1.0, epochs=30)
    first, second = (fit(on_pcs, config, device="cpu", seed=1) for _ in range(2))
    assert same(first, second)
    assert losses(first)[-1] < losses(first)[0]
    assert first.history[0].cvc > first.history[-1].cvc
    np.testing.assert_allclose(np.linalg.norm(first.z_1, axis=1), 1, rtol=1e-5)
    values = np.linalg.svd(first.z_1, compute_uv=False)
    assert values.sum() ** 2 / (values**2).sum() > 1.5


def test_gene_programs_without_components_are_refused(small: Features) -> None:
    with pytest.raises(TrainingError, match="needs principal components"):
        fit(small, make_config(refinement="programs"), device="cpu")


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(small: Features) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    config = make_config(epochs=3, dropout=0.0)
    on_cpu, on_gpu, again = (fit(small, config, device=device) for device in ("cpu", "cuda", "cuda"))
    np.testing.assert_allclose(on_gpu.emb_1, on_cpu.emb_1, atol=1e-3)
    assert same(on_gpu, again)
