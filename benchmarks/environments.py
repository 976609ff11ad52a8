"""Environments of their own, for peers that cannot live beside the project's pinned packages."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cache import CACHE_FOLDER

logger = logging.getLogger(__name__)

WORKERS = Path(__file__).parent / "workers"
CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"
MARKER = "installed.txt"
INSTALL_SECONDS = 1200


class WorkerError(RuntimeError):
    """A worker script failed; the text is the last line it wrote."""


@dataclass(frozen=True)
class Environment:
    """A virtual environment with one peer in it, made when it is first needed and kept beside the cache."""

    name: str
    """Of the peer."""
    requirements: tuple[str, ...]
    """For pip, pinned; another list makes the environment anew."""
    constrained: bool = False
    """Whether `constraints.txt` holds, too."""
    on_request: bool = False
    """Large: a benchmark uses it where it is there, and does not make it."""
    parent: Path = CACHE_FOLDER
    worker: str = ""
    """Script of `benchmarks/workers`, without `.py`, that `run` runs in it; empty: the one of the peer's name."""

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.parent / f"{self.name}-venv"

    def is_ready(self) -> bool:
        """Tell whether it is there, with these requirements."""
        marker = self.folder / MARKER
        return marker.is_file() and marker.read_text(encoding="utf-8").split() == list(self.requirements)

    def make(self) -> bool:
        """Make it unless it is there; return whether it is there now. Without a network the answer is no."""
        if self.is_ready():
            return True
        logger.info("installing %s into %s", ", ".join(self.requirements), self.folder)
        limits = ("--constraint", str(CONSTRAINTS)) if self.constrained else ()
        quiet = ("--quiet", "--disable-pip-version-check", "--retries", "1", "--timeout", "15")
        install = (str(self.python), "-m", "pip", "install", *quiet, *limits, *self.requirements)
        try:
            _call((sys.executable, "-m", "venv", "--clear", str(self.folder)), INSTALL_SECONDS)
            _call(install, INSTALL_SECONDS)
        except (WorkerError, OSError, subprocess.TimeoutExpired) as error:
            logger.warning("%s could not be installed: %s", self.name, error)
            shutil.rmtree(self.folder, ignore_errors=True)
            return False
        (self.folder / MARKER).write_text("\n".join(self.requirements) + "\n", encoding="utf-8")
        return True

    def run(self, folder: Path) -> None:
        """Run the worker script on a folder of files; it leaves its answers there.

        Raises
        ------
        WorkerError
            It failed.
        """
        script = WORKERS / f"{self.worker or self.name}.py"
        _call((str(self.python), "-I", str(script), str(folder)), None, {"HOME": str(folder)})

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def _call(command: tuple[str, ...], seconds: float | None, variables: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=seconds, env=os.environ | (variables or {})
    )
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise WorkerError(lines[-1] if lines else f"exit code {done.returncode}")
