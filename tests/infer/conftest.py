"""What tests of `scrcl-assign` as a user meets it share: a query beside a folder of models, and a way to run it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scrcl_infer import shell
from scrcl_infer.bundle import write_bundle
from scrcl_infer.cli import PROG, app
from tests.infer.test_cli import Run, write_query
from tests.make_bundle import tiny_bundle


@pytest.fixture
def query(tmp_path: Path) -> Path:
    """A query, and beside it the folder of models."""
    write_bundle(tiny_bundle(), tmp_path / "models" / "tiny")
    return write_query(tmp_path / "new.h5ad", 30)


@pytest.fixture
def run(query: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process; return exit code, stdout and stderr."""
    monkeypatch.setenv("SCRCL_MODELS", str(query.parent / "models"))

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["scrcl-assign", *map(str, words)])
        code = shell.run(app, prog=PROG)
        return code, *capsys.readouterr()

    return call
