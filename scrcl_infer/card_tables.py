"""The tables of populations and types in a model card: written at training, and anew when a bundle is renamed."""

from __future__ import annotations

import re

from scrcl_infer.contract import Manifest

MAX_ROWS = 60
"""Rows of a table; the manifest holds them all."""
POPULATIONS = "## Populations"
TYPES = "## Types"


def write_populations(manifest: Manifest) -> str:
    """Return the section of the populations as Markdown."""
    rows = [
        f"| {_cell(p.name)} | {_cell(p.cell_type)} | {p.n_cells:,} | {'' if p.purity is None else f'{p.purity:.0%}'} |"
        for p in manifest.populations
    ]
    head = [
        POPULATIONS,
        "",
        "| population | type | training cells | share of it with that label |",
        "|---|---|---:|---:|",
    ]
    return "\n".join(head + _shorten(rows, 4))


def write_types(manifest: Manifest) -> str:
    """Return the section of the types as Markdown, '' where each population is a type of its own name."""
    plain = all(p.name == p.cell_type for p in manifest.populations)
    if plain and not manifest.encoder.n_types and not any(t.ontology_id for t in manifest.cell_types):
        return ""
    keys = "".join(f" {_cell(level.key)} |" for level in manifest.levels)
    rows = [
        f"| {_cell(t.name)} | {t.n_cells:,} | {t.ontology_id or ''} |"
        + "".join(f" {_cell(level.names[i])} |" for level in manifest.levels)
        for i, t in enumerate(manifest.cell_types)
    ]
    head = [
        TYPES,
        "",
        f"| type | training cells | ontology id |{keys}",
        "|---|---:|---|" + "---|" * len(manifest.levels),
    ]
    return "\n".join(head + _shorten(rows, 3 + len(manifest.levels)))


def replace_tables(card: str, manifest: Manifest) -> str:
    """Return a card with the sections of populations and types written anew; they are added where it has none."""
    for heading, section in ((POPULATIONS, write_populations(manifest)), (TYPES, write_types(manifest))):
        found = re.search(rf"^{heading}\n.*?(?=^## |\Z)", card, flags=re.MULTILINE | re.DOTALL)
        if found:
            card = card[: found.start()] + (f"{section}\n\n" if section else "") + card[found.end() :]
        elif section:
            card = f"{card.rstrip()}\n\n{section}\n"
    return card


def _cell(text: str) -> str:
    """Text that cannot break a table row."""
    return text.replace("|", "\\|").replace("\n", " ")


def _shorten(rows: list[str], n_columns: int) -> list[str]:
    if len(rows) <= MAX_ROWS:
        return rows
    return [*rows[:MAX_ROWS], f"| and {len(rows) - MAX_ROWS} more |" + " |" * (n_columns - 1)]
