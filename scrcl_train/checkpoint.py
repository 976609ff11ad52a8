"""A run folder: its settings, its log, and the state from which training goes on bit for bit.

======================  ===================================================================
`run.json`              settings, seed, fingerprint of the data, device, versions; what was asked of the data
`metrics.jsonl`         one line per epoch
`checkpoint.pt`         weights, optimiser, random generators; tensors and plain data only
======================  ===================================================================
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from scrcl_infer.errors import OutputError, TrainingError

CHECKPOINT_VERSION = 1


class RunFiles(NamedTuple):
    """The files of a run folder."""

    settings: str = "run.json"
    metrics: str = "metrics.jsonl"
    checkpoint: str = "checkpoint.pt"
    marker_scores: str = "marker_scores.csv"


RUN_FILES = RunFiles()
ASKED = "asked"
"""Key of what was asked for beside the teacher's settings."""
FREE_KEYS = ("config.teacher.epochs", "config.preset", "device", "versions", ASKED)
"""Settings that may differ when a run goes on: a run can be lengthened or moved. Of what was asked, the teacher sees
what the data's fingerprint tells already."""


def open_run(run_dir: Path, settings: Mapping[str, Any], *, resume: bool) -> dict[str, Any] | None:
    """Make the folder ready and return the checkpoint to go on from, if there is one.

    Parameters
    ----------
    run_dir
        Made if missing.
    settings
        JSON data that identifies the run; written to `run.json`.
    resume
        Go on from the folder's checkpoint; a folder without one starts from the beginning.

    Raises
    ------
    OutputError
        The folder holds a run and `resume` is off.
    TrainingError
        It holds a run of other settings; the text names the keys that differ.
    """
    path = run_dir / RUN_FILES.settings
    if path.exists():
        if not resume:
            msg = f"{run_dir} already holds a run. Resume it (--resume), or choose another folder."
            raise OutputError(msg)
        _check_same(path, settings)
    run_dir.mkdir(parents=True, exist_ok=True)
    _write_atomically(path, (json.dumps(settings, indent=2, sort_keys=True) + "\n").encode())
    checkpoint = run_dir / RUN_FILES.checkpoint
    return read_checkpoint(checkpoint) if resume and checkpoint.exists() else None


def note_asked(run_dir: Path, asked: Mapping[str, Any]) -> None:
    """Add to `run.json` what the user asked for beside the teacher's settings; it is never compared.

    Parameters
    ----------
    run_dir
        A run that `open_run` has made ready.
    asked
        JSON data.
    """
    path = run_dir / RUN_FILES.settings
    settings = json.loads(path.read_text(encoding="utf-8"))
    _write_atomically(path, (json.dumps({**settings, ASKED: asked}, indent=2, sort_keys=True) + "\n").encode())


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state of tensors and plain data; a reader finds the old file or the new one, never half of one."""
    temporary = path.with_name(path.name + ".tmp")
    torch.save({"version": CHECKPOINT_VERSION, **state}, temporary)
    temporary.replace(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a state back, onto the CPU. Nothing but tensors and plain data is ever unpickled.

    Raises
    ------
    TrainingError
        The file is damaged, holds other objects, or was written by another version.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        msg = f"{path} cannot be read as a checkpoint ({type(error).__name__}). Remove the run folder and start anew."
        raise TrainingError(msg) from error
    found = state.get("version") if isinstance(state, dict) else None
    if found != CHECKPOINT_VERSION:
        msg = f"{path} is a checkpoint of version {found}, this is version {CHECKPOINT_VERSION}. Start the run anew."
        raise TrainingError(msg)
    return dict(state)


def write_metrics(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write the log anew: what a resumed run has behind it."""
    _write_atomically(path, "".join(json.dumps(line) + "\n" for line in lines).encode())


def append_metrics(path: Path, line: Mapping[str, Any]) -> None:
    """Add one line to the log."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def _check_same(path: Path, settings: Mapping[str, Any]) -> None:
    try:
        stored = _flatten(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        msg = f"{path} is not JSON. Remove the run folder and start anew."
        raise TrainingError(msg) from error
    asked = _flatten(json.loads(json.dumps(settings)))
    differing = [
        f"{key} (there {stored.get(key)!r}, asked {asked.get(key)!r})"
        for key in sorted(stored.keys() | asked.keys())
        if stored.get(key) != asked.get(key)
        and not any(key == free or key.startswith(free + ".") for free in FREE_KEYS)
    ]
    if differing:
        msg = (
            f"{path.parent} holds a run of other settings: {', '.join(differing)}. "
            "Use the same settings, or another folder."
        )
        raise TrainingError(msg)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
