"""`scrcl-assign` as a user or a pipeline meets it: streams, exit codes, what is left behind."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import scipy.sparse as sp

from scrcl_infer.bundle import bundle_sha256, write_bundle
from scrcl_infer.cli import app, main
from scrcl_infer.encoder import available_threads
from tests.make_bundle import tiny_bundle

N = 30
Run = Callable[..., tuple[int, str, str]]
COMMAND = [sys.executable, "-m", "scrcl_infer.cli"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_bundle(tiny_bundle(), folder / "tiny")
    return folder


def write_query(path: Path, n: int) -> Path:
    adata = ad.AnnData(sp.csr_matrix(np.random.default_rng(0).poisson(1.0, (n, 40)).astype(np.float32)))
    adata.var_names = [f"GENE{i}" for i in range(40)]
    adata.obs_names = [f"cell{i}" for i in range(n)]
    adata.write_h5ad(path)
    return path


@pytest.fixture
def query(tmp_path: Path) -> Path:
    return write_query(tmp_path / "new.h5ad", N)


@pytest.fixture
def run(models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process; return exit code, stdout and stderr."""
    monkeypatch.setenv("SCRCL_MODELS", str(models))

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["scrcl-assign", *map(str, words)])
        before = signal.getsignal(signal.SIGTERM)
        try:
            with pytest.raises(SystemExit) as stop:
                main()
        finally:
            signal.signal(signal.SIGTERM, before)
        out, err = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        return stop.value.code, out, err

    return call


def test_without_output_a_tsv_and_nothing_else_is_on_stdout(run: Run, query: Path) -> None:
    code, out, err = run(query, "-m", "tiny")
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out), delimiter="\t"))
    assert [row["cell"] for row in rows] == [f"cell{i}" for i in range(N)]
    assert " ".join(rows[0]) == "cell scrcl_cell_type scrcl_population scrcl_confidence scrcl_margin scrcl_strangeness"
    assert "cells    30 assigned by tiny" in err
    assert [p.name for p in query.parent.iterdir()] == ["new.h5ad"]


@pytest.mark.parametrize("name", ["o.h5ad", "o.csv", "o.tsv", "o.tsv.gz", "o.parquet"])
def test_with_output_stdout_is_empty_and_the_file_is_named(run: Run, query: Path, name: str) -> None:
    out = query.parent / name
    code, stdout, err = run(query, "-m", "tiny", "-o", out)
    assert (code, stdout) == (0, "")
    assert out.stat().st_size > 0
    assert f"written  {out}" in err


def test_the_report_holds_input_model_output_and_options(run: Run, query: Path, models: Path) -> None:
    report, out = query.parent / "report.json", query.parent / "o.tsv"
    code, _, _ = run(query, "-m", "tiny", "-o", out, "--report", report, "--no-reject", "--threads", 1)
    assert code == 0
    data = json.loads(report.read_text())
    assert data["input"]["sha256"] == hashlib.sha256(query.read_bytes()).hexdigest()
    assert data["input"]["n_bytes"] == query.stat().st_size
    assert data["model"]["sha256"] == bundle_sha256(models / "tiny")
    assert data["output"]["path"] == str(out)
    assert data["output"]["obs_columns"] == out.read_text().splitlines()[0].split("\t")[1:]
    assert (data["options"]["reject"], data["options"]["threads"]) == (False, 1)
    assert sum(data["cells_per_type"].values()) == data["n_cells"] == N
    assert data["timings_s"]["total"] > 0


def test_the_report_says_how_many_threads_were_used_where_none_were_named(run: Run, query: Path) -> None:
    report = query.parent / "report.json"
    code, _, _ = run(query, "-m", "tiny", "-o", query.parent / "o.tsv", "--report", report)
    assert code == 0
    assert json.loads(report.read_text())["options"]["threads"] == available_threads()


def test_quiet_says_nothing(run: Run, query: Path) -> None:
    code, out, err = run(query, "-m", "tiny", "-o", query.parent / "o.tsv", "-q")
    assert (code, out, err) == (0, "", "")


def test_the_default_model_is_said_aloud(run: Run, query: Path, models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(models / "tiny", query.parent / "m" / "human-pbmc")
    monkeypatch.setenv("SCRCL_MODELS", str(query.parent / "m"))
    code, _, err = run(query, "-o", query.parent / "o.tsv")
    assert code == 0
    assert "No model was named: using 'human-pbmc'" in err


def test_options_reach_the_answer(run: Run, query: Path) -> None:
    _, out, _ = run(query, "-m", "tiny", "--obs-prefix", "x_", "--block-size", 7)
    assert out.splitlines()[0].split("\t")[1] == "x_cell_type"
    code, _, err = run(query, "-m", "tiny", "--layer", "nowhere")
    assert code == 3
    assert "nowhere" in err
    code, _, err = run(query, "-m", "tiny", "--gene-column", "symbols")
    assert code == 3
    assert "symbols" in err


def test_a_dry_run_checks_and_writes_nothing(run: Run, query: Path) -> None:
    code, out, err = run(query, "-m", "tiny", "-o", query.parent / "o.h5ad", "--dry-run")
    assert (code, out) == (0, "")
    assert "40 of 40 found" in err
    assert "dry run" in err
    assert [p.name for p in query.parent.iterdir()] == ["new.h5ad"]
    assert run(query.parent / "none.h5ad", "-m", "tiny", "--dry-run")[0] == 3


def test_exit_codes_tell_what_went_wrong(run: Run, query: Path, models: Path) -> None:
    folder = query.parent
    few = ad.read_h5ad(query)
    few.var_names = [f"gene{i}" for i in range(1000, 1040)]
    few.write_h5ad(folder / "few.h5ad")
    negative = ad.read_h5ad(query)
    negative.X = -negative.X
    negative.write_h5ad(folder / "negative.h5ad")
    (folder / "text.h5ad").write_text("no HDF5")
    shutil.copytree(models / "tiny", folder / "changed")
    with (folder / "changed" / "encoder.onnx").open("ab") as file:
        file.write(b"x")
    (folder / "there.tsv").write_text("old")
    expected = {
        (query, "--no-such-option"): 2,
        (query, "--threads", "0"): 2,
        (query, "--min-overlap", "1.5"): 2,
        (folder / "none.h5ad", "-m", "tiny"): 3,
        (folder / "text.h5ad", "-m", "tiny"): 3,
        (folder / "negative.h5ad", "-m", "tiny"): 3,
        (folder / "few.h5ad", "-m", "tiny"): 4,
        (query, "-m", "no-such-model"): 5,
        (query, "-m", folder / "changed"): 5,
        (query, "-m", "tiny", "-o", folder / "there.tsv"): 6,
        (query, "-m", "tiny", "-o", query, "--force"): 6,
        (query, "-m", "tiny", "-o", folder / "missing" / "o.tsv"): 6,
        (query, "-m", "tiny", "-o", folder / "o.xlsx"): 6,
        (query, "-m", "tiny", "--report", query, "--force"): 6,
        (query, "-m", "tiny", "-o", folder / "same.tsv", "--report", folder / "same.tsv"): 6,
    }
    before = sorted(p.name for p in folder.iterdir())
    got = {}
    for words in expected:
        code, out, err = run(*words)
        got[words] = code
        assert out == ""
        assert "Traceback" not in err
        assert err.strip()
    assert got == expected
    assert sorted(p.name for p in folder.iterdir()) == before
    assert (folder / "there.tsv").read_text() == "old"


def test_force_replaces(run: Run, query: Path) -> None:
    out = query.parent / "o.tsv"
    out.write_text("old")
    assert run(query, "-m", "tiny", "-o", out, "--force")[0] == 0
    assert out.read_text().startswith("cell\t")


def test_version_is_one_line(run: Run) -> None:
    code, out, _ = run("--version")
    assert code == 0
    assert len(out.splitlines()) == 1
    assert out.split()[0] == "scrcl-assign"


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_teaches_with_examples(run: Run, option: str) -> None:
    code, out, _ = run(option)
    assert code == 0
    assert "scrcl-assign new.h5ad > types.tsv" in out
    assert "Exit codes" in out
    for parameter in app.registered_commands[0].callback.__annotations__:
        if parameter not in ("data", "version", "return"):
            assert f"--{parameter.replace('_', '-')}" in out


def environment(models: Path) -> dict[str, str]:
    return {**os.environ, "SCRCL_MODELS": str(models), "OMP_NUM_THREADS": "1"}


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['scrcl-assign', '--help']\n"
        "from scrcl_infer.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'scipy', 'h5py', 'onnxruntime', 'anndata', 'pandas', 'pyarrow'} & set(sys.modules)\n"
        "sys.stderr.write(repr(sorted(heavy)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]"


@pytest.mark.parametrize("name", ["o.tsv", "o.h5ad"])
def test_a_run_needs_no_pandas_and_no_network(query: Path, models: Path, name: str) -> None:
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise RuntimeError('network')\n"
        "socket.socket.connect = refuse\n"
        f"sys.argv = ['scrcl-assign', {str(query)!r}, '-m', 'tiny', '-o', {str(query.parent / name)!r}, '-q']\n"
        "from scrcl_infer.cli import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert stop.code == 0, stop.code\n"
        "print(sorted({'anndata', 'pandas', 'pyarrow', 'torch', 'scanpy', 'sklearn'} & set(sys.modules)))"
    )
    env = {k: v for k, v in environment(models).items() if k != "HOME"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("[]\n", "", 0)


def test_a_reader_that_stops_early_is_no_crash(tmp_path: Path, models: Path) -> None:
    line = f"{sys.executable} -m scrcl_infer.cli {write_query(tmp_path / 'long.h5ad', 12_000)} -m tiny | head -n 2"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, env=environment(models), check=False)
    assert len(done.stdout.splitlines()) == 2, "twelve thousand cells are more than a pipe holds"
    assert "Traceback" not in done.stderr
    assert "Errno" not in done.stderr


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_being_stopped_leaves_no_target_and_no_trace(tmp_path: Path, models: Path, stop: int, code: int) -> None:
    query = write_query(tmp_path / "long.h5ad", 150_000)  # far from done when the signal comes
    hears = ("env", "--default-signal=INT")  # the child of a background job would ignore the interrupt
    words = [*hears, *COMMAND, str(query), "-m", "tiny", "-o", str(tmp_path / "o.h5ad"), "--block-size", "1"]
    process = subprocess.Popen(words, env=environment(models), stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while not list(tmp_path.glob(".o.h5ad.*.tmp")) and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(stop)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == [query]


@pytest.mark.parametrize("name", ["o.h5ad", "o.tsv", "o.csv.gz", "o.parquet"])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, models: Path, name: str) -> None:
    query = write_query(tmp_path / "long.h5ad", 3000)
    limit = query.stat().st_size + 60_000 if name == "o.h5ad" else 10_000  # room for a copy, but not for the answers
    words = ["bash", "-c", f'ulimit -f {limit // 1024}; exec "$@"', "-", *COMMAND, str(query), "-m", "tiny", "-o"]
    done = subprocess.run(
        [*words, str(tmp_path / name)], capture_output=True, text=True, env=environment(models), check=False
    )
    assert done.returncode == 6
    assert done.stderr.splitlines()[-1] == (
        f"scrcl-assign: error: Cannot write '{tmp_path / name}': File too large. Free space or choose another place."
    )
    assert list(tmp_path.iterdir()) == [query]


def test_input_and_model_may_be_read_only(run: Run, query: Path, models: Path, tmp_path: Path) -> None:
    data = tmp_path / "readonly"
    data.mkdir()
    shutil.copy(query, data / "new.h5ad")
    (data / "new.h5ad").chmod(0o444)
    data.chmod(0o555)
    try:
        code, _, _ = run(data / "new.h5ad", "-m", models / "tiny", "-o", tmp_path / "o.h5ad")
    finally:
        data.chmod(0o755)
    assert code == 0
    assert ad.read_h5ad(tmp_path / "o.h5ad").n_obs == N
    assert os.access(tmp_path / "o.h5ad", os.W_OK)
