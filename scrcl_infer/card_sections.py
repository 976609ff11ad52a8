"""The sections of a model card that depend on names: written at training, and anew when a bundle is renamed."""

from __future__ import annotations

import re

from scrcl_infer.contract import UNKNOWN, Manifest

MAX_ROWS = 60
"""Rows of a table; the manifest holds them all."""
POPULATIONS = "## Populations"
TYPES = "## Types"
FIGURES = "## How well it does"


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


def write_figures(manifest: Manifest) -> str:
    """Return the section on how well the model does on its own training cells as Markdown."""
    calibration, parity = manifest.calibration, manifest.parity
    lines = [FIGURES, ""]
    if calibration.n_held_out:
        lines.append(
            f"Of {calibration.n_held_out:,} training cells held out of a first fit, {_right(manifest)}"
            f"{calibration.kept_fraction:.1%} keep their answer; stranger cells, and those whose best type has a "
            f"probability below {calibration.threshold:.3g}, are '{UNKNOWN}'."
        )
        if calibration.expected_calibration_error is not None:
            lines.append(
                f"Probabilities are off by {calibration.expected_calibration_error:.1%} on average (expected "
                f"calibration error) at temperature {calibration.temperature:.3f}."
            )
        if manifest.spatial is not None:
            lines.append(
                "Held-out spots have learned spots beside them, whose expression was averaged into theirs: a new "
                "section is answered less well than these figures say."
            )
        if calibration.hidden_auroc is not None:
            classes = "types" if manifest.encoder.n_types else "populations"
            lines.append(
                f"{classes.capitalize()} were hidden from further fits in turn: strangeness told their cells from "
                f"held-out cells of the other {classes} with an AUROC of {calibration.hidden_auroc:.3f} on average "
                "(0.5 is chance)."
            )
        lines.append("Cells of another donor, laboratory or chemistry are harder than held-out cells of the same data.")
    else:
        lines.append(
            "Nothing could be held out of so few cells: probabilities are not calibrated, no cell is rejected."
        )
    lines += [
        "",
        f"The exported encoder was compared with the trained network on {parity.n_cells:,} cells: embedding within "
        f"{parity.max_abs_diff:.1e}, {parity.label_agreement:.0%} the same population and type.",
    ]
    return "\n".join(lines)


def _right(manifest: Manifest) -> str:
    share = manifest.calibration.accuracy
    if share is None:
        return ""
    what = "the type of their label" if manifest.encoder.n_types else "the type of the population found for them"
    return f"{share:.1%} get {what}, and "


def replace_sections(card: str, manifest: Manifest) -> str:
    """Return a card with these sections written anew; those that it has not are added."""
    sections = {
        POPULATIONS: write_populations(manifest),
        TYPES: write_types(manifest),
        FIGURES: write_figures(manifest),
    }
    for heading, section in sections.items():
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
