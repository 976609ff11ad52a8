"""Nothing in scrcl_infer reaches for the network, needs a home folder, or writes where it was not told to.

The commands run in a process of their own, where Python reports every socket it makes to an audit hook that stops it.
Compiled code is beyond the hook: for onnxruntime, which reports to its maker by default, the traces are looked for.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import anndata
import pandas as pd
import pytest
import scipy.sparse as sp

from tests.make_bundle import random_counts

ROOT = Path(__file__).parents[2]
V1 = ROOT / "tests" / "data" / "bundles" / "v1"

PRELUDE = """
import sys

def stop(event, arguments):
    if event.startswith("socket."):
        raise RuntimeError("network: " + event)

sys.addaudithook(stop)
"""
COMMAND = """
from scrcl_infer.{module} import main
sys.argv = {arguments!r}
sys.exit(main())
"""


@pytest.fixture
def query(tmp_path: Path) -> Path:
    counts, _ = random_counts(20, 40)
    names = pd.DataFrame(index=[f"GENE{i}" for i in range(40)])
    cells = pd.DataFrame(index=[f"cell{i}" for i in range(20)])
    path = tmp_path / "in" / "new.h5ad"
    path.parent.mkdir()
    anndata.AnnData(sp.csr_matrix(counts), obs=cells, var=names).write_h5ad(path)
    return path


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """The empty folder that commands run in."""
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def run(code: str, work: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    # No HOME, no user name: as under a scheduler, or in a container with an arbitrary user id.
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TMPDIR": str(work),
        "SCRCL_MODELS": str(V1.parent),
    } | variables
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + code], cwd=work, env=environment, capture_output=True, text=True, check=False
    )


def command(module: str, *arguments: str) -> str:
    return COMMAND.format(module=module, arguments=["prog", *arguments])


def test_the_hook_stops_sockets(work: Path) -> None:
    """The tests below would pass with a hook that does nothing."""
    for call in ("socket.socket()", "socket.getaddrinfo('localhost', 80)", "socket.create_connection(('::1', 9))"):
        done = run(f"import socket\n{call}", work)
        assert "RuntimeError: network: socket." in done.stderr


@pytest.mark.parametrize("output", ["out.h5ad", "out.tsv", "out.csv.gz", "out.parquet", "-"])
def test_assigning(output: str, query: Path, work: Path) -> None:
    done = run(command("cli", str(query), "--model", "v1", "-o", output, "--report", "report.json"), work)
    assert done.returncode == 0, done.stderr
    expected = {"report.json"} | ({output} if output != "-" else set())
    assert {path.name for path in work.iterdir()} == expected
    assert [path.name for path in query.parent.iterdir()] == [query.name]
    assert (len(done.stdout.splitlines()) == 21) == (output == "-")


@pytest.mark.parametrize("arguments", [["list"], ["show", "v1"], ["verify", "v1"], ["--version"], ["--help"]])
def test_looking_at_models(arguments: list[str], work: Path) -> None:
    done = run(command("cli_models", *arguments), work)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(work.iterdir()) == []


def test_a_model_that_is_not_there_is_not_fetched(query: Path, work: Path) -> None:
    done = run(command("cli", str(query), "--model", "human-liver"), work)
    assert done.returncode == 5
    assert "no model is called 'human-liver'" in done.stderr
    assert list(work.iterdir()) == []


def test_the_python_interface(query: Path, work: Path) -> None:
    code = f"""
import anndata, scrcl_infer
model = scrcl_infer.load({str(V1)!r}, threads=1)
from_file = model.assign({str(query)!r})
in_memory = model.assign(anndata.read_h5ad({str(query)!r}))
assert (from_file.cell_type == in_memory.cell_type).all()
print(len(from_file.cell_type))
"""
    done = run(code, work)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "20\n"
    assert list(work.iterdir()) == []


def test_nothing_is_left_in_the_home_folder(query: Path, work: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    done = run(command("cli", str(query), "--model", "v1"), work, HOME=str(home))
    assert done.returncode == 0, done.stderr
    assert list(home.iterdir()) == []


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts threads in /proc, which is Linux")
def test_onnxruntime_starts_no_uploader(work: Path) -> None:
    code = """
import os
import numpy
before = len(os.listdir("/proc/self/task"))
from scrcl_infer.runtime import import_onnxruntime
import_onnxruntime()
print(len(os.listdir("/proc/self/task")) - before, "ORT_DISABLE_TELEMETRY" in os.environ)
"""
    assert run(code, work).stdout == "0 False\n"
    assert run(code, work, ORT_DISABLE_TELEMETRY="0").stdout == "0 True\n"


@pytest.mark.parametrize("package", ["scrcl_infer", "scrcl_train"])
def test_onnxruntime_is_imported_in_one_place(package: str) -> None:
    sources = (ROOT / package).rglob("*.py")
    found = [path.name for path in sources if re.search(r"^\s*(import|from) onnxruntime", path.read_text(), re.M)]
    assert found == (["runtime.py"] if package == "scrcl_infer" else [])
