"""The house rules that a reader can see: short files, short functions, documented names, honest `__all__`."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("scrcl_infer", "scrcl_train")
SOURCES = sorted(path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
ALL_FILES = SOURCES + sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("*.py"))
MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS = 300, 60, 7
Function = ast.FunctionDef | ast.AsyncFunctionDef


def parse(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


def functions(tree: ast.Module) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def is_command(path: Path) -> bool:
    """Whether the parameters of this file's functions are the options of a command, each with its help text."""
    return path.name.startswith("cli")


def length(function: Function, path: Path) -> int:
    """Lines of a function with its docstring; without its signature where that is the table of options."""
    first = function.body[0].lineno if is_command(path) else function.lineno
    return (function.end_lineno or first) - first + 1


def undocumented(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """Public classes and functions without a docstring, methods included."""
    for node in body:
        if not isinstance(node, ast.ClassDef | Function) or node.name.startswith("_"):
            continue
        if ast.get_docstring(node) is None and not is_overload(node):
            yield prefix + node.name
        if isinstance(node, ast.ClassDef):
            yield from undocumented(node.body, f"{prefix}{node.name}.")


def is_overload(node: ast.ClassDef | Function) -> bool:
    return any(isinstance(item, ast.Name) and item.id == "overload" for item in node.decorator_list)


def public_names(tree: ast.Module) -> set[str]:
    """Names that a module defines, or imports from our own packages, also for type checkers only."""
    names = set()
    guarded = [inner for node in tree.body if isinstance(node, ast.If) for inner in node.body]
    for node in [*tree.body, *guarded]:
        if isinstance(node, ast.ClassDef | Function):
            names.add(node.name)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGES):
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(target.id for target in targets if isinstance(target, ast.Name))
    return {name for name in names if not name.startswith("_")}


def test_there_is_something_to_check() -> None:
    assert {Path("scrcl_infer/contract.py"), Path("scrcl_train/config.py")} <= set(SOURCES)


@pytest.mark.parametrize("path", ALL_FILES, ids=str)
def test_files_and_functions_are_short(path: Path) -> None:
    n_lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    assert n_lines <= MAX_FILE, f"{path} has {n_lines} lines: it has more than one job"
    lengths = {function.name: length(function, path) for function in functions(parse(path))}
    assert {name: n for name, n in lengths.items() if n > MAX_FUNCTION} == {}


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_public_names_are_documented(path: Path) -> None:
    tree = parse(path)
    assert ast.get_docstring(tree), f"{path} does not say what it is for"
    assert list(undocumented(tree.body)) == []


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_everything_is_annotated_and_few_parameters(path: Path) -> None:
    for function in functions(parse(path)):
        arguments = function.args
        named = [a for a in [*arguments.posonlyargs, *arguments.args] if a.arg not in ("self", "cls")]
        bare = [a.arg for a in [*named, *arguments.kwonlyargs] if a.annotation is None]
        assert bare == [], f"{path}: {function.name}"
        assert function.returns is not None, f"{path}: {function.name} has no return annotation"
        assert arguments.kwarg is None, f"{path}: {function.name} takes **{arguments.kwarg.arg}"
        if not is_command(path):
            n_parameters = len(named) + len(arguments.kwonlyargs)
            assert n_parameters <= MAX_PARAMETERS, f"{path}: {function.name} takes {n_parameters}"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_imports_have_no_side_effects(path: Path) -> None:
    """At module level there are definitions and constants; the only bare expressions are docstrings."""
    for node in parse(path).body:
        if isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant), f"{path}:{node.lineno}"
        assert not isinstance(node, ast.For | ast.While | ast.With), f"{path}:{node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_user_input_is_not_checked_by_assert(path: Path) -> None:
    """An assert vanishes under `python -O`."""
    assert [node.lineno for node in ast.walk(parse(path)) if isinstance(node, ast.Assert)] == []


@pytest.mark.parametrize("module", [*PACKAGES, "scrcl_infer.errors"])
def test_all_is_sorted_and_true(module: str) -> None:
    loaded = importlib.import_module(module)
    assert loaded.__file__ is not None, f"{module} has no __init__.py"
    listed = loaded.__all__
    assert list(listed) == sorted(set(listed))
    assert set(listed) == public_names(parse(Path(loaded.__file__).relative_to(ROOT)))
    assert all(getattr(loaded, name) is not None for name in listed)
    assert set(listed) <= set(dir(loaded))
