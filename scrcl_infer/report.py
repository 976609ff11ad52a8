"""What is said about a run: `report.json` for machines and a short summary for people.

A report holds everything that a pipeline needs to log or to decide on: versions, checksums, which matrix was read, the
gene overlap, cells per type, the share of unknown cells, timings, peak memory and warnings.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from scrcl_infer.atomic import write_atomically
from scrcl_infer.contract import UNKNOWN
from scrcl_infer.result import AssignOptions, Summary
from scrcl_infer.target import Target

REPORT_SCHEMA_VERSION = 1
"""Raised when a key of the report is renamed, removed or changes its meaning; new keys may come at any time."""
LEVEL_NAMES = 8
"""Most names of a coarser level in the summary for people; the reports have all."""


def build_report(summary: Summary) -> dict[str, Any]:
    """Return the report as JSON data.

    Parameters
    ----------
    summary
        What is said about the file; the keys of its `extra` ('model', 'input', 'output', 'options', 'populations',
        'levels', 'timings_s') go in as they are.

    Returns
    -------
    dict
        Times in seconds, memory in bytes, shares in [0, 1].
    """
    n_cells = summary.n_cells
    return {
        "schema_version": REPORT_SCHEMA_VERSION,
        "versions": read_versions(),
        **summary.extra,
        "n_cells": n_cells,
        "n_unknown": summary.n_unknown,
        "n_empty": summary.n_empty,
        "unknown_rate": round(summary.n_unknown / n_cells, 6) if n_cells else 0.0,
        "mean_confidence": round(summary.mean_confidence, 6),
        "rejection": asdict(summary.rejection),
        "cells_per_type": dict(summary.cells_per_type),
        "matrix": asdict(summary.matrix),
        "genes": asdict(summary.genes),
        "peak_rss_bytes": read_peak_rss(),
        "warnings": list(summary.warnings),
    }


def add_run(
    summary: Summary, data: Path, target: Target, options: AssignOptions, *, further: Sequence[str] = ()
) -> Summary:
    """Return the summary with what was read, where the answers went, and how; reads the input once for its checksum.

    `further` are the columns written beyond those of every bundle.
    """
    run = {
        "input": {"path": str(data), "n_bytes": data.stat().st_size, "sha256": compute_sha256(data)},
        "output": {"path": str(target.path), "obs_columns": [*target.columns, *further]},
        "options": asdict(options),
    }
    return replace(summary, extra={**summary.extra, **run})


def write_report(summary: Summary, path: Path, *, force: bool = False) -> None:
    """Write `report.json`, whole or not at all.

    Raises
    ------
    OutputError
        The folder is missing, or the file exists and `force` is not set.
    """
    text = json.dumps(build_report(summary), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode(), force=force)


def format_summary(summary: Summary) -> str:
    """Return the summary for people: a few aligned lines, no colours, ends without a line feed."""
    lines = [*_headline(summary), *_type_lines(summary), *_level_lines(summary)]
    lines += [f"warning  {warning}" for warning in summary.warnings]
    return "\n".join(lines)


def explain_unknown(summary: Summary) -> str:
    """Return how many cells are unknown for which reason, in a few words; '' where none is."""
    found = summary.rejection
    reasons = {
        "too strange": found.n_unknown_strange,
        "too improbable": found.n_unknown_improbable,
        "without counts in the model's genes": found.n_unknown_empty,
    }
    return ", ".join(f"{n:,} {reason}" for reason, n in reasons.items() if n)


def order_counts(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Return names and their cells, most frequent first, unknown last."""
    return sorted(counts.items(), key=lambda item: (item[0] == UNKNOWN, -item[1], item[0]))


def read_versions() -> dict[str, str]:
    """Return the versions that the answers depend on: scrcl, onnxruntime, numpy, Python."""
    packages = ("scrcl", "onnxruntime", "numpy", "h5py")
    found = {name: _version(name) for name in packages}
    return {**found, "python": sys.version.split()[0]}


def read_peak_rss() -> int:
    """Return the largest resident memory of this process so far, in bytes; 0 where the system does not say."""
    try:
        # Not `ru_maxrss` here: on Linux it starts from the memory of the process that started this one.
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if os.name != "posix":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def compute_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _headline(summary: Summary) -> list[str]:
    genes, matrix = summary.genes, summary.matrix
    model = summary.extra.get("model", {}).get("name", "the model")
    seconds = summary.extra.get("timings_s", {}).get("total")
    speed = f" in {seconds:.1f} s" if seconds else ""
    dropped = f", {genes.n_dropped_features:,} features of other kinds left out" if genes.n_dropped_features else ""
    changed = summary.extra.get("vote", {}).get("n_changed")
    voted = [] if changed is None else [f"vote     {changed:,} types changed by the vote of neighbours"]
    summed = f", {genes.n_summed:,} duplicates summed" if genes.n_summed else ""
    return [
        f"cells    {summary.n_cells:,} assigned by {model}{speed}",
        f"matrix   {matrix.where} as {matrix.state}. {matrix.reason}",
        f"genes    {genes.n_found:,} of {genes.n_model:,} found, {genes.weighted_overlap:.1%} of the model's evidence "
        f"({genes.matched_by}{summed}{dropped})",
        *voted,
    ]


def _type_lines(summary: Summary) -> list[str]:
    """One line a type, most frequent first, unknown last."""
    counts = order_counts(summary.cells_per_type)
    if not counts:
        return []
    widest = max(len(name) for name, _ in counts)
    lines = []
    for name, n in counts:
        note = f"  ({why})" if name == UNKNOWN and (why := explain_unknown(summary)) else ""
        lines.append(f"  {name:<{widest}}  {n:>9,}  {n / summary.n_cells:6.1%}{note}")
    return lines


def _level_lines(summary: Summary) -> list[str]:
    """One line a coarser level, the first names only where there are many."""
    lines = []
    for key, per_name in summary.extra.get("levels", {}).items():
        counts = order_counts(per_name)
        shown = [f"{name} {n:,}" for name, n in counts[:LEVEL_NAMES]]
        more = [f"{len(counts) - LEVEL_NAMES:,} more"] if len(counts) > LEVEL_NAMES else []
        lines.append(f"level    {key}: {', '.join([*shown, *more])}")
    return lines


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
