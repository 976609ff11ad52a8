"""The version of our own methods: a hash of the code that decides their answers."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path

TRAIN_FOLDER = Path(__file__).parents[1] / "scrcl_train"


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
