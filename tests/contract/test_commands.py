"""Each command that `pyproject.toml` installs also runs from a source tree, as `python -m MODULE`."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_command_runs_as_a_module(name: str) -> None:
    command = [sys.executable, "-m", SCRIPTS[name].partition(":")[0]]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split()[0] == name
    wrong = subprocess.run([*command, "--no-such-option"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert wrong.returncode == 2
