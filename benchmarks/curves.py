"""The picture of the robustness benchmark: macro-F1 against depth and against the genes that are left."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean

from benchmarks.conditions import CONDITIONS, Condition
from benchmarks.robustness import row_of
from benchmarks.table import Table, scores_of


def draw_curves(table: Table, path: Path) -> Path:
    """Draw a row of two panels for each pair, one line a method; return the path.

    Parameters
    ----------
    table
        From `benchmarks.robustness.make_table`.
    path
        With the ending of the picture's format.
    """
    from matplotlib.figure import Figure

    pairs = list(dict.fromkeys(row.pair.name for row in table.plan.sets))  # type: ignore[attr-defined]
    figure = Figure(figsize=(9, 2.8 * len(pairs) + 0.6), layout="constrained")
    grid = figure.subplots(len(pairs), 2, squeeze=False, sharey=True)
    for axes, pair in zip(grid, pairs, strict=True):
        for panel, words in zip(axes, ("share of counts kept", "share of genes kept"), strict=True):
            by_depth = words.endswith("counts kept")
            for method in table.plan.methods:
                shares, means = curve_of(table, method.name, pair, by_depth=by_depth)
                if means:
                    width = 2.2 if method.columns[0].is_ours else 1.2
                    panel.plot(shares, means, marker="o", markersize=3, linewidth=width, label=method.columns[0].title)
            panel.set(title=pair, xlabel=words, ylabel="macro-F1", ylim=(0, 1.02))
            panel.set_xscale("log" if by_depth else "linear")
            panel.invert_xaxis()
            panel.grid(alpha=0.3)
    handles, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    return path


def curve_of(table: Table, method: str, pair: str, *, by_depth: bool) -> tuple[list[float], list[float]]:
    """Return shares in descending order and the mean macro-F1 over seeds at each that has a score."""
    shares, means = [], []
    for condition in CONDITIONS:
        share = condition.depth if by_depth else condition.genes
        if condition != Condition() and share == 1:
            continue
        scores = scores_of(table, method, row_of(pair, condition.name), "macro_f1")
        if scores:
            shares.append(share)
            means.append(fmean(scores))
    return shares, means
