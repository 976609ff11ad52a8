"""The picture of the robustness benchmark: macro-F1 against depth and against the genes that are left."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from benchmarks.conditions import CONDITIONS, Condition
from benchmarks.robustness import row_of
from benchmarks.table import Table, scores_of

PANELS = {"depth": "share of counts kept", "genes": "share of genes kept", "variable": "variable genes kept"}
"""What a condition changes, and the words for it."""


def draw_curves(table: Table, path: Path) -> Path:
    """Draw a row of three panels for each pair, one line a method; return the path.

    Parameters
    ----------
    table
        From `benchmarks.robustness.make_table`.
    path
        With the ending of the picture's format.
    """
    from matplotlib.figure import Figure

    pairs = list(dict.fromkeys(row.pair.name for row in table.plan.sets))  # type: ignore[attr-defined]
    figure = Figure(figsize=(12, 2.8 * len(pairs) + 0.6), layout="constrained")
    grid = figure.subplots(len(pairs), len(PANELS), squeeze=False, sharey=True)
    for axes, pair in zip(grid, pairs, strict=True):
        for panel, (changed, words) in zip(axes, PANELS.items(), strict=True):
            for method in table.plan.methods:
                left, means = curve_of(table, method.name, pair, changed)
                if means:
                    width = 2.2 if method.columns[0].is_ours else 1.2
                    panel.plot(left, means, marker="o", markersize=3, linewidth=width, label=method.columns[0].title)
            panel.set(title=pair, xlabel=words, ylabel="macro-F1", ylim=(0, 1.02))
            panel.grid(alpha=0.3)
            if changed != "variable":  # of which "all" is no number
                panel.set_xscale("log" if changed == "depth" else "linear")
                panel.invert_xaxis()
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def curve_of(table: Table, method: str, pair: str, changed: str) -> tuple[list[float | str], list[float]]:
    """Return what is left, in descending order, and the mean macro-F1 over seeds at each that has a score.

    Parameters
    ----------
    table
        From `benchmarks.robustness.make_table`.
    method, pair
        Names.
    changed
        A key of `PANELS`; of variable genes "all" are left in the query as measured.
    """
    left: list[float | str] = []
    means = []
    for condition in CONDITIONS:
        value = getattr(condition, changed)
        if condition != Condition() and value == getattr(Condition(), changed):
            continue
        scores = scores_of(table, method, row_of(pair, condition.name), "macro_f1")
        if scores:
            left.append(("all" if value is None else f"{value:,}") if changed == "variable" else value)
            means.append(fmean(scores))
    return left, means
