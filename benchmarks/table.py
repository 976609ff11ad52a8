"""The table of a benchmark: Markdown for people, JSON with every single figure."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from benchmarks.methods import Column, Method, versions_of
from benchmarks.runner import Plan, Results

RESULTS_FOLDER = Path(__file__).parent / "results"

METRIC_TITLES = {
    "ari": "ARI",
    "nmi": "NMI",
    "accuracy": "ACC",
    "macro_f1": "Macro-F1",
    "weighted_f1": "Weighted F1",
    "calibration_error": "Expected calibration error",
    "n_clusters": "Clusters found",
}


@dataclass(frozen=True)
class Table:
    """All that is printed and saved."""

    benchmark: str
    protocol: str
    """Markdown paragraphs: what every method was given and what the scores are."""
    metrics: tuple[str, ...]
    groups: tuple[tuple[str, tuple[str, ...]], ...]
    """(title, data sets): the means printed under the rows."""
    plan: Plan
    results: Results
    packages: tuple[str, ...]
    kinds: Mapping[str, str] = field(default_factory=lambda: {"given": "K given", "estimated": "K estimated"})
    """Words for the columns' kinds."""
    row_notes: Mapping[str, str] = field(default_factory=dict)
    """Data set -> text after its name, e.g. its number of types."""
    closing: str = ""
    """Markdown printed behind the scores."""


def scores_of(table: Table, column: str, data: str, metric: str) -> list[float]:
    """Return one score per finished seed."""
    found = []
    for method in table.plan.methods:
        if column not in {c.key for c in method.columns}:
            continue
        for seed in table.plan.seeds:
            call = table.results.calls.get((method.name, data, seed))
            if call and metric in call["columns"].get(column, {}):
                found.append(float(call["columns"][column][metric]))
    return [value for value in found if not math.isnan(value)]


def format_table(table: Table) -> str:
    """Return the whole Markdown text."""
    parts = [f"# {table.benchmark.capitalize()} benchmark", table.protocol, _head(table)]
    for kind, words in table.kinds.items():
        columns = [(m, c) for m in table.plan.methods for c in m.columns if c.k == kind]
        for metric in table.metrics if columns else ():
            if metric == "n_clusters" and kind == "given":
                continue
            parts.append(f"## {METRIC_TITLES.get(metric, metric)}, {words}\n\n" + _grid(table, columns, metric))
    parts.append(table.closing)
    parts.append("## Seconds per call\n\n" + _seconds(table))
    parts.append(_notes(table))
    return "\n\n".join(part for part in parts if part) + "\n"


def write_table(table: Table, folder: Path = RESULTS_FOLDER) -> tuple[Path, Path]:
    """Write `NAME.md` and `NAME.json`; return both paths."""
    folder.mkdir(parents=True, exist_ok=True)
    markdown, data = folder / f"{table.benchmark}.md", folder / f"{table.benchmark}.json"
    markdown.write_text(format_table(table), encoding="utf-8")
    data.write_text(json.dumps(to_json(table), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return markdown, data


def to_json(table: Table) -> dict[str, Any]:
    """Return every figure: column -> data set -> metric -> one value per finished seed."""
    columns = [(m, c) for m in table.plan.methods for c in m.columns]
    return {
        "benchmark": table.benchmark,
        "protocol": table.protocol,
        "seeds": list(table.plan.seeds),
        "threads": table.plan.threads,
        "machine": _machine(),
        "versions": versions_of(table.packages),
        "columns": {
            c.key: {"title": c.title, "k": c.k, "note": c.note, "method": m.name, **m.cache_key()} for m, c in columns
        },
        "scores": {
            c.key: {
                item.name: {metric: scores_of(table, c.key, item.name, metric) for metric in table.metrics}
                for item in table.plan.sets
            }
            for _, c in columns
        },
        "seconds": {
            f"{method}/{data}/{seed}": [round(call["prepare_seconds"], 3), round(call["seconds"], 3)]
            for (method, data, seed), call in sorted(table.results.calls.items())
        },
        "not_installed": {m.name: list(m.missing()) for m in table.plan.methods if m.missing()},
        "failures": {"/".join(map(str, where)): text for where, text in sorted(table.results.failures.items())},
    }


def summarise(table: Table, column: str, sets: Sequence[str], metric: str) -> tuple[float, float] | None:
    """Return the mean over sets of the means over seeds, and the mean of the sds; None unless every set has a score."""
    per_set = [scores_of(table, column, name, metric) for name in sets]
    if not per_set or not all(per_set):
        return None
    return fmean(fmean(values) for values in per_set), fmean(pstdev(values) for values in per_set)


def _grid(table: Table, columns: Sequence[tuple[Method, Column]], metric: str) -> str:
    head = ["data set", *(c.title + (" †" if c.note else "") for _, c in columns)]
    contest = [not c.uses_labels for _, c in columns]
    rows = []
    for item in table.plan.sets:
        note = table.row_notes.get(item.name, "")
        cells = [_cell(table, m, c, item.name, metric) for m, c in columns]
        rows.append([item.name + note, *_mark_best(cells, metric, contest)])
    names = [item.name for item in table.plan.sets]
    for title, wanted in table.groups:
        if not set(wanted) <= set(names) or metric == "n_clusters":
            continue
        means = [summarise(table, c.key, wanted, metric) for _, c in columns]
        cells = ["" if m is None else _pair(*m) for m in means]
        rows.append([f"**{title}**", *_mark_best(cells, metric, contest)])
    return format_grid(head, rows)


def format_grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _cell(table: Table, method: Method, column: Column, data: str, metric: str) -> str:
    values = scores_of(table, column.key, data, metric)
    if not values and method.missing():
        return "not installed"
    if not method.suits(next(item for item in table.plan.sets if item.name == data)):
        return "-"
    if not values and any(key[:2] == (method.name, data) for key in table.results.calls):
        return "-"  # no such score, as of a method without confidences
    if not values:
        failed = any(key[:2] == (method.name, data) for key in table.results.failures)
        return "failed" if failed else "not run"
    if metric == "n_clusters":
        return f"{fmean(values):.1f}"
    plural = "" if len(values) == 1 else "s"
    short = f" ({len(values)} seed{plural})" if len(values) < len(table.plan.seeds) else ""
    return _pair(fmean(values), pstdev(values)) + short


def _pair(mean: float, sd: float) -> str:
    return f"{mean:.3f} ± {sd:.3f}"


def _mark_best(cells: list[str], metric: str, contest: Sequence[bool]) -> list[str]:
    """Set the highest mean (lowest calibration error) of those in the contest in bold, to the three digits shown."""
    pairs = zip(cells, contest, strict=True)
    shown = [float(cell.split(" ±")[0]) if fair and "±" in cell else None for cell, fair in pairs]
    values = [value for value in shown if value is not None]
    if metric == "n_clusters" or not values:
        return cells
    best = min(values) if metric == "calibration_error" else max(values)
    return [f"**{cell}**" if value == best else cell for cell, value in zip(cells, shown, strict=True)]


def _seconds(table: Table) -> str:
    rows = []
    for method in table.plan.methods:
        calls = [call for (name, _, _), call in table.results.calls.items() if name == method.name]
        if calls:
            prepare, run = ([call[key] for call in calls] for key in ("prepare_seconds", "seconds"))
            title = " / ".join(c.title for c in method.columns)
            rows.append([title, f"{fmean(prepare):.1f}", f"{fmean(run):.1f}", f"{max(run):.1f}"])
    return format_grid(["method", "preparation, mean", "per seed, mean", "per seed, longest"], rows)


def _head(table: Table) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in versions_of(table.packages).items())
    seeds = ", ".join(map(str, table.plan.seeds))
    return (
        f"Seeds {seeds}; entries are mean ± standard deviation over seeds (population form), the last rows the means "
        f"of both over sets; the best mean is bold.\n\n{_machine()}; each call in one process, OMP threads: "
        f"{table.plan.threads}. Versions: {versions}."
    )


def _notes(table: Table) -> str:
    lines = [f"† {c.title}: {c.note}" for m in table.plan.methods for c in m.columns if c.note]
    lines += [f"{m.name}: not installed ({', '.join(m.missing())})" for m in table.plan.methods if m.missing()]
    lines += [f"{'/'.join(map(str, where))} failed: {text}" for where, text in sorted(table.results.failures.items())]
    return "\n".join(f"- {line}" for line in lines)


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
