"""`report.html`: the report as one page to look at. No scripts, nothing loaded from elsewhere, pictures as inline SVG.

Every name from the data or the model goes through `html.escape`.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from scrcl_infer.atomic import write_atomically
from scrcl_infer.contract import UNKNOWN, Calibration, Manifest
from scrcl_infer.report import build_report, explain_unknown, order_counts
from scrcl_infer.result import Sketch, Summary

ENDINGS = (".html", ".htm")
"""A report of such a name is a page; all others are JSON."""
GENES_SHOWN = 10
"""Driving genes shown of each type; the table of `--explain` has more."""
SIDE = 560
"""Width of the pictures, in pixels."""
ROW = 22
"""Height of a bar, in pixels."""
NAME = 34
"""Letters of a name shown in a picture; the whole name comes up on pointing at it."""
_GREY = "#9a9a9a"
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; color: #222; }}
h1 {{ font-size: 1.5rem; }} h2 {{ font-size: 1.1rem; margin: 2rem 0 .4rem; }}
table {{ border-collapse: collapse; }}
td, th {{ padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; }}
td {{ overflow-wrap: anywhere; }} svg {{ max-width: 100%; height: auto; }} svg text {{ font-size: 12px; fill: #222; }}
.warning {{ background: #fff2d6; border-left: 4px solid #d98a00; padding: .4rem .8rem; margin: .4rem 0; }}
.key {{ display: inline-block; margin-right: 1rem; white-space: nowrap; }}
.dot {{ display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .3em; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def write_html(summary: Summary, manifest: Manifest, path: Path, *, force: bool = False) -> None:
    """Write the page, whole or not at all.

    Raises
    ------
    OutputError
        The folder is missing, or the file exists and `force` is not set.
    """
    write_atomically(path, build_html(summary, manifest).encode(), force=force)


def build_html(summary: Summary, manifest: Manifest) -> str:
    """Return the page.

    Parameters
    ----------
    summary
        What is said about the file; its `extra` may hold what `add_run` puts there, and 'explanation'.
    manifest
        The model's, for the order of its types and its calibration.
    """
    report = build_report(summary)
    source = report.get("input", {}).get("path", "the input")
    title = f"{Path(source).name} assigned by {manifest.name}"
    colours = {t.name: _colour(i) for i, t in enumerate(manifest.cell_types)}
    sections = [
        f"<h1>{_text(title)}</h1>",
        _warnings(report["warnings"]),
        _figures(report, explain_unknown(summary)),
        _section("Cells of each type", _type_bars(report, colours)),
        *(_section(f"Cells at level '{key}'", _level(counts)) for key, counts in report.get("levels", {}).items()),
        _section("Confidence", _histogram(summary.sketch), _calibration(manifest.calibration, report)),
        _section("Map", _map(summary.sketch, colours)),
        _section("Genes", _genes(report["genes"])),
        _section("Matrix", _rows(report["matrix"].items())),
        _section("Genes that drove each type", _driving(report.get("explanation"))),
        _section("Model", _model(report, manifest)),
        _section("Run", _run(report)),
    ]
    return _PAGE.format(title=_text(title), body="\n".join(part for part in sections if part))


def _text(value: object) -> str:
    return escape(str(value), quote=True)


def _section(heading: str, *parts: str) -> str:
    return f"<h2>{_text(heading)}</h2>\n" + "\n".join(parts) if any(parts) else ""


def _rows(items: Iterable[tuple[object, object]]) -> str:
    """Return a table of names and values; None is left out."""
    rows = (f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in items if value is not None)
    return f"<table>{''.join(rows)}</table>"


def _warnings(warnings: list[str]) -> str:
    if not warnings:
        return "<p>No warnings.</p>"
    return "\n".join(f'<p class="warning">{_text(warning)}</p>' for warning in warnings)


def _figures(report: dict[str, Any], why: str) -> str:
    unknown = f"{report['n_unknown']:,} ({report['unknown_rate']:.1%})"
    changed = report.get("vote", {}).get("n_changed")
    return _rows(
        {
            "cells": f"{report['n_cells']:,}",
            "unknown": unknown,
            "of them": why or None,
            "mean confidence": f"{report['mean_confidence']:.3f}",
            "changed by the vote of neighbours": None if changed is None else f"{changed:,}",
        }.items()
    )


def _type_bars(report: dict[str, Any], colours: dict[str, str]) -> str:
    """Return one bar a type, most frequent first, unknown last."""
    counts = order_counts(report["cells_per_type"])
    if not counts:
        return "<p>No cells.</p>"
    most, left, room = max(n for _, n in counts), 230, SIDE - 230 - 120
    bars = []
    for i, (name, n) in enumerate(counts):
        y, width = i * ROW, room * n / most
        shown = name if len(name) <= NAME else name[: NAME - 1] + "…"
        bars.append(
            f'<g><title>{_text(name)}</title><text x="{left - 8}" y="{y + 15}" text-anchor="end">{_text(shown)}</text>'
            f'<rect x="{left}" y="{y + 3}" width="{width:.1f}" height="{ROW - 6}" fill="{colours.get(name, _GREY)}"/>'
            f'<text x="{left + width + 6:.1f}" y="{y + 15}">{n:,} ({n / report["n_cells"]:.1%})</text></g>'
        )
    return _svg(SIDE, ROW * len(counts), bars)


def _level(per_name: dict[str, int]) -> str:
    """Return a table of the cells of each name at a coarser level."""
    n_cells = max(sum(per_name.values()), 1)
    return _rows((name, f"{n:,} ({n / n_cells:.1%})") for name, n in order_counts(per_name))


def _histogram(sketch: Sketch | None) -> str:
    if sketch is None or not sum(sketch.confidence):
        return ""
    width, height, most = SIDE / len(sketch.confidence), 140, max(sketch.confidence)
    bars = []
    for i, n in enumerate(sketch.confidence):
        tall = height * n / most
        low, high = i / len(sketch.confidence), (i + 1) / len(sketch.confidence)
        bars.append(
            f'<rect x="{i * width + 1:.1f}" y="{height - tall:.1f}" width="{width - 2:.1f}" height="{tall:.1f}" '
            f'fill="#4a7ab5"><title>{low:.2f} to {high:.2f}: {n:,} cells</title></rect>'
        )
    bars += [
        f'<text x="{x}" y="{height + 16}" text-anchor="{anchor}">{label}</text>'
        for x, anchor, label in ((0, "start", "0"), (SIDE / 2, "middle", "0.5"), (SIDE, "end", "1"))
    ]
    return _svg(SIDE, height + 22, bars)


def _calibration(calibration: Calibration, report: dict[str, Any]) -> str:
    error = calibration.expected_calibration_error
    measured = f" Their expected calibration error was {error:.3f}." if error is not None else ""
    if calibration.accuracy is not None:
        measured = f" {calibration.accuracy:.1%} of them were given their type.{measured}"
    voted = (
        " The vote of neighbours pooled confidences, which are not calibrated anew after it."
        if "vote" in report
        else ""
    )
    rejects = report.get("options", {}).get("reject", True)
    strange = report.get("familiarity", {}).get("strange_share") is not None
    below = f"below {calibration.threshold:.3f}"
    which = f"that lie outside of what the model knows, or {below}," if strange else below
    rule = f"Cells {which} are unknown." if rejects else "No cell was rejected (--no-reject)."
    return (
        f"<p>Confidences were calibrated on {calibration.n_held_out:,} training cells held out from the encoder "
        f"(temperature {calibration.temperature:.2f}).{measured} {rule} The threshold kept "
        f"{calibration.kept_fraction:.1%} of the held-out cells. Cells of other laboratories or protocols are a little "
        f"less often right than their confidence says.{voted}</p>"
    )


def _map(sketch: Sketch | None, colours: dict[str, str]) -> str:
    """Return the places of the sketched cells as points, coloured by type, and a key."""
    if sketch is None:
        return ""
    seen = np.flatnonzero(np.isfinite(sketch.places).all(axis=1))
    if not seen.size:
        return "<p>No cell has a place.</p>"
    places = sketch.places[seen].astype(np.float64)
    low = places.min(axis=0)
    span = max(float((places.max(axis=0) - low).max()), 1e-9)
    at = 5 + (places - low) / span * (SIDE - 10)
    height = float(at[:, 1].max()) + 5
    groups, key = [], []
    for number in [-1, *range(len(sketch.types))]:  # the unknown lie beneath
        rows = np.flatnonzero(sketch.cell_type[seen] == number)
        if not rows.size:
            continue
        name = UNKNOWN if number < 0 else sketch.types[number]
        colour = _GREY if number < 0 else colours[name]
        points = "".join(f'<circle cx="{x:.1f}" cy="{height - y:.1f}" r="1.8"/>' for x, y in at[rows])
        groups.append(f'<g fill="{colour}" fill-opacity="0.7"><title>{_text(name)}</title>{points}</g>')
        key.append(f'<span class="key"><span class="dot" style="background:{colour}"></span>{_text(name)}</span>')
    note = f"{seen.size:,} cells, evenly spaced over the file, on the UMAP of the training cells."
    return f"{_svg(SIDE, height, groups)}\n<p>{''.join(key)}</p>\n<p>{note}</p>"


def _genes(genes: dict[str, Any]) -> str:
    missing = ", ".join(genes["missing_top"]) or "none"
    return _rows(
        {
            "found": f"{genes['n_found']:,} of {genes['n_model']:,}, matched by {genes['matched_by']}",
            "share of the model's evidence": f"{genes['weighted_overlap']:.1%}",
            "missing, those that matter most first": missing,
            "duplicates summed": genes["n_summed"],
            "features of other kinds left out": genes["n_dropped_features"],
        }.items()
    )


def _driving(explanation: list[dict[str, Any]] | None) -> str:
    if not explanation:
        return ""
    by_type: dict[str, list[str]] = {}
    for row in explanation:
        listed = by_type.setdefault(row["cell_type"], [])
        if row["in_query"] and len(listed) < GENES_SHOWN:
            listed.append(row["symbol"] or row["gene"])
    note = (
        "Genes that training tied to the type and that its cells express more than the others; "
        "not the encoder's own weights."
    )
    return f"{_rows((name, ', '.join(listed)) for name, listed in by_type.items())}\n<p>{note}</p>"


def _model(report: dict[str, Any], manifest: Manifest) -> str:
    provenance = manifest.provenance
    return _rows(
        {
            "name": manifest.name,
            "SHA-256": report.get("model", {}).get("sha256"),
            "written by": manifest.created_by,
            "trained on": f"{provenance.data_name}, {provenance.n_cells:,} cells, licence {provenance.data_licence}",
            "types": len(manifest.cell_types),
            "populations": len(manifest.populations),
        }.items()
    )


def _run(report: dict[str, Any]) -> str:
    groups = ("input", "output", "options", "timings_s", "versions")
    items = [(f"{group}: {name}", value) for group in groups for name, value in report.get(group, {}).items()]
    return _rows([*items, ("peak memory", f"{report['peak_rss_bytes'] / 1e6:,.0f} MB")])


def _svg(width: float, height: float, parts: list[str]) -> str:
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return f'<svg role="img" {size}>{"".join(parts)}</svg>'


def _colour(number: int) -> str:
    """Return the colour of a type: hues by the golden angle, so that neighbours in the list differ."""
    return f"hsl({number * 137.508 % 360:.0f} {(65, 50)[number % 2]}% {(42, 58, 34)[number % 3]}%)"
