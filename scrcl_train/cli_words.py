"""What the words on the command line of `scrcl-train` may be; anything else is wrong usage, with a list of choices."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import typer


class DeviceChoice(StrEnum):
    """Where training may be asked to run: `scrcl_train.device.DEVICES`, known here without importing torch."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


def is_no_path(word: str) -> bool:
    """Whether the first word can only be a command: no option, no `.h5ad`, and nothing of that name is there."""
    return not word.startswith("-") and Path(word).suffix != ".h5ad" and not Path(word).exists()


def describe_commands(word: str, commands: Sequence[str], *, prog: str) -> str:
    """Say that `word` is no command, which one was probably meant, and which there are."""
    close = difflib.get_close_matches(word, commands, n=1)
    meant = f"Did you mean '{prog} {close[0]}'? " if close else ""
    return (
        f"there is neither a command nor a file '{word}'. {meant}Commands: {', '.join(commands)}; or name an "
        f".h5ad file to train on. See {prog} --help."
    )


def parse_n_populations(text: str) -> int | None:
    """Return the number of -k; None for 'auto'."""
    if text == "auto":
        return None
    if not text.isdigit() or int(text) < 1:
        msg = f"must be a number from 1, or 'auto'; found {text!r}"
        raise typer.BadParameter(msg, param_hint="--n-populations")
    return int(text)


def split_names(text: str) -> tuple[str, ...]:
    """Return the names of a list with commas; spaces around them are not theirs."""
    return tuple(name.strip() for name in text.split(","))


def choose_preset(preset: str, section: str | None, *, spatial: bool) -> str:
    """Turn --spatial into a preset for tissue sections, and refuse what does not go together."""
    from scrcl_train.presets import PRESETS, get_preset

    if preset not in PRESETS:
        msg = f"there is no {preset!r}; choose one of {', '.join(PRESETS)}"
        raise typer.BadParameter(msg, param_hint="--preset")
    if spatial:
        preset = {"default": "spatial", "paper": "paper:spatial"}.get(preset, preset)
    fits = get_preset(preset).spatial
    if spatial and not fits:
        msg = f"{preset!r} is not for tissue sections; leave it out, or take 'paper' or 'paper:spatial'"
        raise typer.BadParameter(msg, param_hint="--preset")
    if section is not None and not fits:
        msg = "tells tissue sections apart, which needs --spatial as well"
        raise typer.BadParameter(msg, param_hint="--section")
    return preset
