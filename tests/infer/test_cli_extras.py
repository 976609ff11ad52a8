"""`scrcl-assign --vote`, `--explain` and `--report` as a user meets them."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infer.test_cli import Run


def test_a_page_a_report_and_the_driving_genes(query: Path, run: Run) -> None:
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


@pytest.mark.parametrize("option", ["--report", "--explain"])
def test_standard_output_is_for_answers_alone(
    query: Path, run: Run, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.chdir(query.parent)
    code, out, err = run(query, "-m", "tiny", "-o", "o.tsv", option, "-")
    assert (code, out) == (6, "")
    assert "Traceback" not in err
    assert {p.name for p in query.parent.iterdir()} == {"new.h5ad", "models"}


def test_every_file_that_was_written_is_named(query: Path, run: Run) -> None:
    folder = query.parent
    before = {path for path in folder.iterdir() if path.is_file()}
    options = ["--explain", folder / "g.csv", "--report", folder / "r.html", "--report", folder / "r.json"]
    code, _, err = run(query, "-m", "tiny", "-o", folder / "o.tsv", *options)
    assert code == 0
    named = [Path(line.removeprefix("written  ")) for line in err.splitlines() if line.startswith("written  ")]
    assert named[0] == folder / "o.tsv"
    assert sorted(named) == sorted({path for path in folder.iterdir() if path.is_file()} - before)
    code, _, err = run(query, "-m", "tiny", "--report", folder / "only.json")
    assert code == 0
    assert [line for line in err.splitlines() if line.startswith("written")] == [f"written  {folder / 'only.json'}"]


def test_a_dry_run_says_that_it_writes_none_of_the_files_named(query: Path, run: Run) -> None:
    folder = query.parent
    before = sorted(folder.iterdir())
    words = [query, "-m", "tiny", "--dry-run", "--report", folder / "a.json", "--explain", folder / "g.csv"]
    code, out, err = run(*words, "-o", folder / "o.tsv", "-q")
    assert (code, out) == (0, "")
    files = ", ".join(str(folder / name) for name in ("o.tsv", "a.json", "g.csv"))
    assert err.splitlines()[-1] == (f"Nothing was assigned, and nothing was written to {files}: this was a dry run.")
    assert run(query, "-m", "tiny", "--dry-run")[2].endswith("Nothing was assigned: this was a dry run.\n")
    assert run(query, "-m", "tiny", "--dry-run", "--report", folder / "none" / "a.json")[0] == 6
    assert sorted(folder.iterdir()) == before


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
