"""What the documents say of the code, held against the code: function names, and the settings that differ."""

from __future__ import annotations

import dataclasses
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from scrcl_train.presets import get_preset

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAME = re.compile(r"`(scrcl_(?:train|infer)(?:\.\w+)+)")
CELL = re.compile(r"^\| `([\w.]+)` \| `(.+?)` \| `(.+?)` \| (.+) \|$", re.MULTILINE)
DEVIATIONS = (ROOT / "docs" / "deviations.md").read_text(encoding="utf-8")


def resolve(name: str) -> object:
    """Import the longest module of a dotted name and take the rest from it."""
    parts = name.split(".")
    for n in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:n]))
        except ModuleNotFoundError:
            continue
        for part in parts[n:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(name)


def settings(preset: str) -> dict[str, object]:
    """All settings of a preset by dotted name, but its own name."""
    plain = dataclasses.asdict(get_preset(preset))
    flat = {
        f"{part}.{key}": v for part, values in plain.items() if isinstance(values, dict) for key, v in values.items()
    }
    return flat | {key: v for key, v in plain.items() if not isinstance(v, dict) and key != "preset"}


def table(paper: str, ours: str) -> list[tuple[str, ...]]:
    """Rows of the table of two presets: setting, value there, value here, reason."""
    part = DEVIATIONS.partition(f"## Settings: `{paper}` and `{ours}`\n")[2].partition("\n## ")[0]
    return CELL.findall(part)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_function_named_in_a_document_exists(path: Path) -> None:
    for name in NAME.findall(path.read_text(encoding="utf-8")):
        resolve(name)


def test_a_function_that_is_not_there_would_be_found() -> None:
    with pytest.raises(AttributeError):
        resolve("scrcl_train.model.Sclcr")
    assert len(NAME.findall((ROOT / "docs" / "method.md").read_text(encoding="utf-8"))) > 40


@pytest.mark.parametrize(("paper", "ours"), [("paper", "default"), ("paper:spatial", "spatial")])
def test_every_setting_that_differs_is_listed_with_its_values_and_a_figure(paper: str, ours: str) -> None:
    published, own = settings(paper), settings(ours)
    differing = {key: (str(published[key]), str(own[key])) for key in own if published[key] != own[key]}
    rows = table(paper, ours)
    assert {key: (there, here) for key, there, here, _ in rows} == differing
    assert len(rows) == len(differing)
    for key, _, _, reason in rows:
        assert re.search(r"\.\d|not measured|As above", reason, re.IGNORECASE), (
            f"{key}: neither a figure nor 'not measured'"
        )


def test_the_training_commands_of_the_readme_work_one_after_the_other() -> None:
    """Each line reads what is there from the start or from a line before it, and replaces nothing."""
    part = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Train a model\n")[2]
    lines = [shlex.split(line, comments=True) for line in part.split("```")[1].splitlines() if line]
    there = {"cells.h5ad", "slices.h5ad"}
    for _, *words in lines:
        written = {words[i + 1] for i, word in enumerate(words) if word in ("-o", "--write-h5ad")}
        read = {word for word in words if word.endswith(".h5ad")} - written
        if words[0] == "biology":
            read.add(words[2])
        assert read <= there, words
        assert not written & there, words
        if "slices.h5ad" in words or "slices.found.h5ad" in words:
            assert "--section" in words
        there |= written
    assert len(lines) == 7
