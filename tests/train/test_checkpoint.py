"""Run folders: what is written comes back, and nothing else is let in."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch

from scrcl_infer.errors import OutputError, TrainingError
from scrcl_train.checkpoint import (
    append_metrics,
    note_asked,
    open_run,
    read_checkpoint,
    write_checkpoint,
    write_metrics,
)


class Outsider:
    """An object that only unpickling code could build."""


def test_state_comes_back_unchanged(tmp_path: Path) -> None:
    state = {"model": {"w": torch.rand(3, 2)}, "random": {"cpu": torch.get_rng_state()}, "history": [{"epoch": 1}]}
    write_checkpoint(tmp_path / "c.pt", state)
    back = read_checkpoint(tmp_path / "c.pt")
    assert torch.equal(back["model"]["w"], state["model"]["w"])
    assert torch.equal(back["random"]["cpu"], state["random"]["cpu"])
    assert back["history"] == [{"epoch": 1}]
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_foreign_objects_are_not_unpickled(tmp_path: Path) -> None:
    torch.save({"version": 1, "model": Outsider()}, tmp_path / "c.pt")
    with pytest.raises(TrainingError, match="cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "c.pt")
    (tmp_path / "d.pt").write_bytes(pickle.dumps(Outsider(), protocol=2))
    with pytest.raises(TrainingError, match="cannot be read as a checkpoint"):
        read_checkpoint(tmp_path / "d.pt")


@pytest.mark.parametrize("keep", [0, 10, 400])
def test_damaged_file_is_refused(tmp_path: Path, keep: int) -> None:
    write_checkpoint(tmp_path / "c.pt", {"model": {"w": torch.rand(30)}})
    whole = (tmp_path / "c.pt").read_bytes()
    (tmp_path / "c.pt").write_bytes(whole[:keep])
    with pytest.raises(TrainingError, match="Remove the run folder"):
        read_checkpoint(tmp_path / "c.pt")


def test_a_write_that_fails_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_checkpoint(tmp_path / "c.pt", {"epoch": 1})

    def full(_: object, path: Path) -> None:
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(tmp_path / "c.pt", {"epoch": 2})
    assert read_checkpoint(tmp_path / "c.pt")["epoch"] == 1


def test_a_file_of_plain_data_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "c.pt")
    with pytest.raises(TrainingError, match="checkpoint of version None"):
        read_checkpoint(tmp_path / "c.pt")
    with pytest.raises(TrainingError, match="FileNotFoundError"):
        read_checkpoint(tmp_path / "missing.pt")


def test_other_version_is_refused(tmp_path: Path) -> None:
    torch.save({"version": 99}, tmp_path / "c.pt")
    with pytest.raises(TrainingError, match="version 99, this is version 1"):
        read_checkpoint(tmp_path / "c.pt")


def test_first_run_starts_from_nothing_and_a_second_needs_leave(tmp_path: Path) -> None:
    settings = {"config": {"teacher": {"hidden": 8, "epochs": 3}}, "seed": 0, "versions": {"torch": "1"}}
    assert open_run(tmp_path / "run", settings, resume=True) is None
    with pytest.raises(OutputError, match="already holds a run"):
        open_run(tmp_path / "run", settings, resume=False)
    write_checkpoint(tmp_path / "run" / "checkpoint.pt", {"history": []})
    found = open_run(tmp_path / "run", settings, resume=True)
    assert found is not None
    assert found["history"] == []


def test_differing_settings_are_named_and_free_ones_pass(tmp_path: Path) -> None:
    settings = {"config": {"teacher": {"hidden": 8, "epochs": 3}}, "seed": 0, "versions": {"torch": "1"}}
    open_run(tmp_path, settings, resume=False)
    free = {"config": {"teacher": {"hidden": 8, "epochs": 9}}, "seed": 0, "versions": {"torch": "2"}}
    open_run(tmp_path, free, resume=True)
    other = {"config": {"teacher": {"hidden": 9, "epochs": 3}}, "seed": 1, "versions": {"torch": "1"}}
    with pytest.raises(TrainingError, match=r"hidden \(there 8, asked 9\), seed \(there 0, asked 1\)"):
        open_run(tmp_path, other, resume=True)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(TrainingError, match="is not JSON"):
        open_run(tmp_path, settings, resume=True)


def test_what_was_asked_is_kept_and_never_compared(tmp_path: Path) -> None:
    settings = {"config": {"teacher": {"hidden": 8}}, "seed": 0}
    open_run(tmp_path, settings, resume=False)
    note_asked(tmp_path, {"batch_key": "donor", "label_keys": ("fine", "broad"), "n_populations": None})
    held = json.loads((tmp_path / "run.json").read_text())
    asked = {"batch_key": "donor", "label_keys": ["fine", "broad"], "n_populations": None}
    assert held == {**settings, "asked": asked}
    open_run(tmp_path, settings, resume=True)  # neither what is there
    note_asked(tmp_path, {"n_populations": 7})
    open_run(tmp_path, {**settings, "asked": {"n_populations": 8}}, resume=True)  # nor what is new
    with pytest.raises(TrainingError, match="seed"):
        open_run(tmp_path, {**settings, "seed": 1}, resume=True)


def test_log_is_one_line_an_epoch(tmp_path: Path) -> None:
    write_metrics(tmp_path / "m.jsonl", [{"epoch": 1}, {"epoch": 2}])
    append_metrics(tmp_path / "m.jsonl", {"epoch": 3, "loss": 0.1})
    lines = [json.loads(line) for line in (tmp_path / "m.jsonl").read_text().splitlines()]
    assert lines == [{"epoch": 1}, {"epoch": 2}, {"epoch": 3, "loss": 0.1}]
