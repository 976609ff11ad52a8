"""scrcl_infer stays light: it works where nothing of training is installed, and imports none of it where it is."""

from __future__ import annotations

import ast
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import scrcl_infer

ROOT = Path(scrcl_infer.__file__).parents[1]
MODULES = ["scrcl_infer", *(f"scrcl_infer.{item.name}" for item in pkgutil.iter_modules(scrcl_infer.__path__))]
FORBIDDEN = ("torch", "sklearn", "scanpy", "onnx", "onnxscript", "umap", "pynndescent", "matplotlib", "scrcl_train")
# All that an import anywhere in scrcl_infer, also inside a function, may name besides Python itself: what the base
# install brings.
ALLOWED = {"scrcl_infer", "anndata", "h5py", "isal", "numpy", "onnxruntime", "pandas", "pyarrow", "scipy", "typer"}
LOADERS = ("import_module", "__import__", "find_spec", "find_loader")
"""Functions that import by a text, which the test of the texts cannot follow."""
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


def imported(tree: ast.Module) -> Iterator[str]:
    """Roots of all that a module imports, at any depth; functions that import by a text as they are called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0] if not node.level else "a relative import"
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in LOADERS:
                yield f"{name}()"


def foreign(code: str) -> set[str]:
    return set(imported(ast.parse(code))) - ALLOWED - sys.stdlib_module_names


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


@pytest.mark.parametrize("path", sorted((ROOT / "scrcl_infer").glob("*.py")), ids=lambda path: path.stem)
def test_no_function_imports_what_the_base_install_lacks(path: Path) -> None:
    """Importing a module does not run its functions: what they import is read from the source."""
    by_text = {"import_module()"} if path.stem == "__init__" else set()
    assert foreign(path.read_text(encoding="utf-8")) == by_text


def test_what_the_package_imports_by_a_text_is_its_own() -> None:
    assert {name.partition(".")[0] for name in scrcl_infer._HOMES.values()} == {"scrcl_infer"}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("def f():\n    import torch", {"torch"}),
        ("def f():\n    if True:\n        from sklearn.cluster import KMeans", {"sklearn"}),
        ("class A:\n    def f(self):\n        import os, scrcl_train.data as d", {"scrcl_train"}),
        ("import importlib\nimportlib.import_module('umap')", {"import_module()"}),
        ("from . import h5ad", {"a relative import"}),
        ("def f():\n    import pandas, json", set()),
    ],
)
def test_a_hidden_import_is_found(code: str, found: set[str]) -> None:
    assert foreign(code) == found


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
