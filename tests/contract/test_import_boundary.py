"""scrcl_infer stays light: it works where nothing of training is installed, and imports none of it where it is."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import scrcl_infer

ROOT = Path(scrcl_infer.__file__).parents[1]
MODULES = ["scrcl_infer", *(f"scrcl_infer.{item.name}" for item in pkgutil.iter_modules(scrcl_infer.__path__))]
FORBIDDEN = ("torch", "sklearn", "scanpy", "onnx", "onnxscript", "umap", "pynndescent", "matplotlib", "scrcl_train")
# What a help text must not wait for.
HEAVY = ("numpy", "scipy", "h5py", "anndata", "pandas", "pyarrow", "onnxruntime", *FORBIDDEN)

BLOCK = """
import importlib, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {forbidden!r}:
            raise ModuleNotFoundError("blocked: " + name, name=name)

sys.meta_path.insert(0, Blocker())
"""
IMPORT = """
import importlib, json, sys
for name in {modules!r}:
    importlib.import_module(name)
roots = {{name.partition(".")[0] for name in sys.modules}}
print(json.dumps(sorted(roots & set({forbidden!r}))))
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_module_is_tried() -> None:
    files = {path.stem for path in (ROOT / "scrcl_infer").glob("*.py")} - {"__init__"}
    assert {name.partition(".")[2] for name in MODULES[1:]} == files
    assert {"bundle", "encoder", "catalog", "cli_models"} <= files


def test_imports_where_training_is_not_installed() -> None:
    done = run(BLOCK.format(forbidden=FORBIDDEN) + IMPORT.format(modules=MODULES, forbidden=FORBIDDEN))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_the_blocker_blocks() -> None:
    """The test above would pass with a blocker that does nothing."""
    done = run(BLOCK.format(forbidden=("json",)) + "import json")
    assert "blocked: json" in done.stderr


def test_imports_nothing_of_training_where_it_is_installed() -> None:
    done = run(IMPORT.format(modules=MODULES, forbidden=FORBIDDEN))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("module", ["scrcl_infer", "scrcl_infer.cli", "scrcl_infer.cli_models"])
def test_commands_start_light(module: str) -> None:
    done = run(IMPORT.format(modules=[module], forbidden=HEAVY))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


def test_imports_say_nothing() -> None:
    done = run("".join(f"import {name}\n" for name in MODULES))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
