"""`scrcl-assign --vote`, `--explain` and `--report` as a user meets them."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scrcl_infer import shell
from scrcl_infer.bundle import write_bundle
from scrcl_infer.cli import PROG, app
from tests.infer.test_cli import write_query
from tests.make_bundle import tiny_bundle


@pytest.fixture
def query(tmp_path: Path) -> Path:
    """A query, and beside it the folder of models."""
    write_bundle(tiny_bundle(), tmp_path / "models" / "tiny")
    return write_query(tmp_path / "new.h5ad", 30)


def test_a_page_a_report_and_the_driving_genes(
    query: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["scrcl-assign", *map(str, words)])
        code = shell.run(app, prog=PROG)
        return code, *capsys.readouterr()

    monkeypatch.setenv("SCRCL_MODELS", str(query.parent / "models"))
    folder = query.parent
    words = [query, "-m", "tiny", "-o", folder / "o.tsv", "--vote", "--explain", folder / "genes.csv"]
    assert run(*words, "--report", folder / "r.html", "--report", folder / "r.json", "-q") == (0, "", "")
    report = json.loads((folder / "r.json").read_text())
    assert report["options"]["vote"] is True
    assert report["vote"]["n_neighbors"] == 15
    genes = list(csv.DictReader((folder / "genes.csv").read_text().splitlines()))
    assert [(g["cell_type"], g["gene"]) for g in genes] == [(g["cell_type"], g["gene"]) for g in report["explanation"]]
    assert report["model"]["sha256"] in (folder / "r.html").read_text()
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
    for extra in (["--explain", folder / "genes.csv"], ["--report", folder / "r.html"], ["--explain", "g.xlsx"]):
        assert run(query, "-m", "tiny", "-o", folder / "new.tsv", *extra)[0] == 6
    assert run(query, "-m", "tiny", "--report", folder / "a", "--report", folder / "a")[0] == 6
    assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before


def test_the_vote_takes_no_more_cpus_than_it_may(query: Path) -> None:
    code = (
        "import os, sys\n"
        f"sys.argv = ['scrcl-assign', {str(query)!r}, '-m', 'tiny', '-q', '--vote', '--threads', '1']\n"
        "from scrcl_infer.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert stop.code == 0, stop.code\n"
        "print(len(os.listdir('/proc/self/task')), file=sys.stderr)"
    )
    env = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    env["SCRCL_MODELS"] = str(query.parent / "models")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)
    assert done.stderr == "1\n"
