"""The version of our own methods: a hash of the code that decides their answers."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[1]
TRAIN_FOLDER = ROOT / "scrcl_train"
ENTRIES = ("scrcl_train.pipeline", "scrcl_infer.pipeline")
"""The ways from counts to a bundle, and from a bundle to answers."""
UNDECIDING = (
    *("add", "atomic", "biology", "card", "catalog", "checkpoint", "cli*", "demo", "errors", "explain*", "figures"),
    *("html*", "preflight", "progress", "record", "rename*", "report*", "shell", "tally", "target", "tissue", "vote*"),
    "write*",
)
"""Modules that only say, draw, refuse or write: an edit of theirs changes no answer."""


def hash_code(names: Iterable[str], folder: Path = TRAIN_FOLDER) -> str:
    """Return 12 hexadecimal digits of a hash of modules, blind to comments, docstrings and layout.

    Parameters
    ----------
    names
        File names without `.py`; one that does not exist counts as empty.
    """
    digest = hashlib.sha256()
    for name in sorted(names):
        path = folder / f"{name}.py"
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        digest.update(f"{name}\n{_bare(text)}\n".encode())
    return digest.hexdigest()[:12]


def hash_deciding_code(root: Path = ROOT) -> str:
    """Return a hash of the modules that training and assigning import, directly or not, and that decide answers."""
    found = trace_modules(ENTRIES, root)
    return "-".join(
        hash_code(
            (name.removeprefix(f"{package}.") for name in found if name.startswith(f"{package}.")), root / package
        )
        for package in ("scrcl_train", "scrcl_infer")
    )


def trace_modules(entries: Iterable[str], root: Path = ROOT, left_out: Iterable[str] = UNDECIDING) -> tuple[str, ...]:
    """Return the modules of the two packages that some modules import, directly or not, and those themselves.

    Parameters
    ----------
    entries
        Full names, e.g. 'scrcl_train.pipeline'.
    root
        The folder that the packages lie in.
    left_out
        Patterns of names within a package that are not followed.
    """
    patterns, found, waiting = tuple(left_out), set[str](), list(entries)
    while waiting:
        name = waiting.pop()
        package, _, module = name.partition(".")
        path = root / package / f"{module}.py"
        if name in found or not path.is_file() or any(fnmatch(module, pattern) for pattern in patterns):
            continue
        found.add(name)
        waiting.extend(_imports(path))
    return tuple(sorted(found))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("scrcl_"):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("scrcl_"))


def _bare(text: str) -> str:
    """Return the syntax tree as text, without docstrings and other bare strings."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        for name, value in list(ast.iter_fields(node)):
            if name == "body" and isinstance(value, list):
                node.body = [item for item in value if not _is_text(item)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
