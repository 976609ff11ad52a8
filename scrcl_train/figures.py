"""The pictures of `scrcl_train.biology`, drawn with matplotlib's Figure alone: no window, no global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scrcl_train.picture import save_picture

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Titles = Mapping[str, str]

POINTS = 120_000
"""Divided by the number of cells, the area of a cell's dot."""
MAX_WIDTH = 24.0
"""Inches."""
CELLS_PER_POPULATION = 60
"""Cells of each population that the heatmap shows."""
SMALL = 0.02
"""Groups with a smaller share of the cells get their name above them on the map."""
EDGE_FROM = 0.05
"""PAGA connectivities below it are not drawn."""
NAME_LENGTH = 28
"""Longest name that is written as it is."""


def draw_umap(places: NDArray[np.float32], groupings: Mapping[str, NDArray[np.object_]], path: Path) -> None:
    """Draw the map once per grouping, with names at the groups' medians, long ones shortened.

    Parameters
    ----------
    places
        (n, 2)
    groupings
        Title -> (n,) group of each cell.
    """
    figure, axes = _figure(6.5 * len(groupings), 6, n_columns=len(groupings))
    for axis, (title, groups) in zip(axes, groupings.items(), strict=True):
        names = order_names(set(groups))
        for name, colour in zip(names, choose_colours(len(names)), strict=True):
            own = places[groups == name]
            size = float(np.clip(POINTS / len(places), 2, 30)) / 2
            axis.scatter(own[:, 0], own[:, 1], s=size, color=colour, linewidths=0, rasterized=True)
        for name, short in zip(names, shorten_names(names), strict=True):
            own = places[groups == name]
            _write_name(axis, short, np.median(own, axis=0), lift=0 if len(own) > SMALL * len(places) else 11)
        axis.set(title=title, xlabel="UMAP 1", ylabel="UMAP 2", xticks=[], yticks=[])
    _keep_inside(figure, axes)
    save_picture(figure, path, force=True)


def draw_dotplot(
    adata: AnnData, key: str, genes: Mapping[str, Sequence[str]], path: Path, *, titles: Titles | None = None
) -> None:
    """Draw populations against their markers: dot size is the share of cells that express, colour the scaled mean.

    Parameters
    ----------
    adata
        (n, g) log-normalised expression.
    genes
        Population -> its markers.
    titles
        Population -> what is written for it; here and below.
    """
    names = [gene for own in genes.values() for gene in own]
    groups = list(adata.obs[key].cat.categories)
    values = _dense(adata, names)
    cells = [np.flatnonzero((adata.obs[key] == group).to_numpy()) for group in groups]
    mean = np.stack([values[i].mean(axis=0) for i in cells])  # (K, genes)
    share = np.stack([(values[i] > 0).mean(axis=0) for i in cells])
    low, high = mean.min(axis=0), mean.max(axis=0)
    scaled = (mean - low) / np.maximum(high - low, 1e-12)
    width = min(MAX_WIDTH, 2.6 + 0.24 * len(names))
    figure, (axis,) = _figure(width, 1.9 + 0.3 * len(groups))
    x, y = np.meshgrid(np.arange(len(names)), np.arange(len(groups)))
    dots = axis.scatter(x, y, s=4 + 90 * share, c=scaled, cmap="Reds", edgecolors="0.5", linewidths=0.4)
    axis.set(xlim=(-0.8, len(names) - 0.2), ylim=(len(groups) - 0.4, -0.6))
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=8, style="italic")
    axis.set_yticks(range(len(groups)), _titled(groups, titles))
    for edge in np.cumsum([len(own) for own in genes.values()])[:-1]:
        axis.axvline(edge - 0.5, color="0.85", linewidth=0.8, zorder=0)
    figure.colorbar(dots, ax=axis, label="mean, scaled per gene", fraction=0.03, pad=0.02)
    for percent in (25, 50, 100):
        axis.scatter([], [], s=4 + 90 * percent / 100, c="0.7", edgecolors="0.5", linewidths=0.4, label=f"{percent} %")
    axis.legend(title="cells expressing", ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False, fontsize=8)
    save_picture(figure, path, force=True)


def draw_heatmap(
    adata: AnnData,
    key: str,
    genes: Mapping[str, Sequence[str]],
    path: Path,
    *,
    titles: Titles | None = None,
    seed: int = 0,
) -> None:
    """Draw standardised expression of the markers (rows) in up to 60 cells of each population (columns)."""
    rng = np.random.default_rng(seed)
    names = [gene for own in genes.values() for gene in own]
    groups = list(adata.obs[key].cat.categories)
    values = _dense(adata, names)
    scaled = np.clip((values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-12), -2.5, 2.5)
    shown, edges = [], [0]
    for group in groups:
        own = np.flatnonzero((adata.obs[key] == group).to_numpy())
        shown.append(np.sort(rng.choice(own, min(len(own), CELLS_PER_POPULATION), replace=False)))
        edges.append(edges[-1] + len(shown[-1]))
    figure, (axis,) = _figure(min(MAX_WIDTH, 4 + 0.5 * len(groups)), 2 + 0.15 * len(names))
    image = axis.imshow(
        scaled[np.concatenate(shown)].T, aspect="auto", cmap="RdBu_r", vmin=-2.5, vmax=2.5, interpolation="nearest"
    )
    for edge in edges[1:-1]:
        axis.axvline(edge - 0.5, color="black", linewidth=0.6)
    middle = (np.array(edges[1:]) + np.array(edges[:-1])) / 2 - 0.5
    axis.set_xticks(middle, _titled(groups, titles), rotation=90)
    axis.set_yticks(range(len(names)), names, fontsize=7, style="italic")
    figure.colorbar(image, ax=axis, label="standardised log expression", fraction=0.03, pad=0.02)
    save_picture(figure, path, force=True)


def draw_paga(
    connectivities: NDArray[np.float64],
    places: NDArray[np.float64],
    names: Sequence[str],
    sizes: NDArray[Any],
    path: Path,
) -> None:
    """Draw the populations' graph: nodes at their place on the map, edges as wide as they are connected.

    Parameters
    ----------
    connectivities
        (K, K) symmetric, in [0, 1].
    places
        (K, 2)
    sizes
        (K,) cells of each population.
    """
    figure, (axis,) = _figure(7, 6)
    for i in range(len(names)):
        for j in range(i):
            if connectivities[i, j] >= EDGE_FROM:
                line = places[[i, j]]
                axis.plot(line[:, 0], line[:, 1], color="0.6", linewidth=0.5 + 5 * connectivities[i, j], zorder=1)
    area = 60 + 700 * np.sqrt(sizes / sizes.max())
    axis.scatter(places[:, 0], places[:, 1], s=area, color=choose_colours(len(names)), edgecolors="black", zorder=2)
    for name, place, width in zip(names, places, np.sqrt(area), strict=True):
        _write_name(axis, name, place, lift=width / 2 + 7)
    axis.margins(0.15)
    axis.set(
        title=f"PAGA (connectivity of {EDGE_FROM} and more)", xlabel="UMAP 1", ylabel="UMAP 2", xticks=[], yticks=[]
    )
    save_picture(figure, path, force=True)


def draw_overlap(comparison: pd.DataFrame, path: Path, *, titles: Titles | None = None) -> None:
    """Draw, for each population and k, how many of its k most associated genes are among its k best markers."""
    tops = sorted(comparison["k"].unique())
    names = list(dict.fromkeys(comparison["population"]))
    figure, axes = _figure(2.2 + 2.8 * len(tops), 1.6 + 0.3 * len(names), n_columns=len(tops))
    for axis, k in zip(axes, tops, strict=True):
        own = comparison[comparison["k"] == k].set_index("population").reindex(names)
        share = own["n_shared"].to_numpy() / k
        sure = own["p_adjusted"].to_numpy() < 0.05
        axis.barh(range(len(names)), share, color=np.where(sure, "tab:blue", "0.75"))
        chance = float(own["expected"].max()) / k
        axis.axvline(chance, color="tab:red", linestyle="--", linewidth=1)
        axis.set(title=f"k = {k}, by chance {chance:.2f}", xlim=(0, 1), ylim=(len(names) - 0.4, -0.6))
        axis.set_yticks(range(len(names)), _titled(names, titles) if axis is axes[0] else [""] * len(names))
        axis.set_xlabel("share of k")
    figure.suptitle("Associated genes that are Wilcoxon markers (blue: adjusted p < 0.05; dashed: chance)", fontsize=10)
    save_picture(figure, path, force=True)


def draw_associated_genes(table: pd.DataFrame, path: Path, *, titles: Titles | None = None, n_genes: int = 10) -> None:
    """Draw the genes most associated with each population among those that are higher in it than elsewhere.

    Parameters
    ----------
    table
        Of `scrcl_train.markers.list_associated_genes`. Genes whose log_difference is not above 0 are left out; a
        population without any other has an empty row. The colour is the rank among the Wilcoxon markers.
    """
    from matplotlib.colors import LogNorm

    names = list(dict.fromkeys(table["population"]))
    higher = table[table["log_difference"] > 0]
    places = higher.groupby("population", observed=True).cumcount()
    ranks = np.full((len(names), n_genes), np.nan)
    figure, (axis,) = _figure(2.4 + 1.05 * n_genes, 1.7 + 0.34 * len(names))
    for row, j in zip(higher.itertuples(), places, strict=True):
        if j >= n_genes:
            continue
        i = names.index(row.population)
        ranks[i, j] = row.wilcoxon_rank
        dark = ranks[i, j] < 20
        axis.text(
            j, i, row.gene, ha="center", va="center", fontsize=8, style="italic", color="white" if dark else "black"
        )
    image = axis.imshow(ranks, aspect="auto", cmap="Blues_r", norm=LogNorm(1, 1000, clip=True))
    axis.set_xticks(range(n_genes), [str(i) for i in range(1, n_genes + 1)])
    axis.set_yticks(range(len(names)), _titled(names, titles))
    axis.set_xlabel("rank by association, among the genes that are higher in the population than elsewhere")
    axis.set_title("Genes that the refinement associates with each population and that are higher in it")
    figure.colorbar(image, ax=axis, label="rank among Wilcoxon markers", fraction=0.03, pad=0.02)
    save_picture(figure, path, force=True)


def choose_colours(n_groups: int) -> list[Any]:
    """Return n colours, different for up to 60 groups."""
    from matplotlib import colormaps

    # Each map pairs strong and pale shades: the strong ones first.
    order = [*range(0, 20, 2), *range(1, 20, 2)]
    colours = [colormaps[name](i) for name in ("tab20", "tab20b", "tab20c") for i in order]
    return [colours[i % len(colours)] for i in range(n_groups)]


def order_names(names: set[str]) -> list[str]:
    """Return names in order, numbers within them by value: P2 before P10."""
    import re

    return sorted(names, key=lambda name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", str(name))])


def shorten_names(names: Sequence[str]) -> list[str]:
    """Return names of up to `NAME_LENGTH` characters, longer ones with an ellipsis at the end.

    Those that would read the same then are cut in the middle; those that still do are left as they are.
    """
    short = [str(name) for name in names]
    half = (NAME_LENGTH - 1) // 2
    cut = [name if len(name) <= NAME_LENGTH else name[: NAME_LENGTH - 1].rstrip() + "…" for name in short]
    middle = [
        name if len(name) <= NAME_LENGTH else f"{name[: NAME_LENGTH - 1 - half]}…{name[-half:]}" for name in short
    ]
    chosen = [own if cut.count(own) == 1 else other for own, other in zip(cut, middle, strict=True)]
    return [own if chosen.count(own) == 1 else name for own, name in zip(chosen, short, strict=True)]


def _titled(names: Sequence[str], titles: Titles | None) -> list[str]:
    return shorten_names([(titles or {}).get(name, name) for name in names])


def _figure(width: float, height: float, *, n_columns: int = 1) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(np.ravel(figure.subplots(1, n_columns)))


def _write_name(axis: Axes, name: str, place: NDArray[Any], *, lift: float = 0.0) -> None:
    """Write a name at a place, raised by `lift` points so that it does not hide what is small."""
    from matplotlib.patheffects import withStroke

    axis.annotate(
        str(name),
        (float(place[0]), float(place[1])),
        xytext=(0, lift),
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=9,
        fontweight="bold",
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
        zorder=3,
    )


def _keep_inside(figure: Figure, axes: Sequence[Axes]) -> None:
    """Move names that run over the left or right edge of their panel back into it."""
    named = [(axis, text) for axis in axes for text in axis.texts]
    for _, text in named:
        text.set_in_layout(False)  # else the layout makes room for what is moved below
    figure.draw_without_rendering()
    for axis, text in named:
        panel, box, (x, y) = axis.get_window_extent(), text.get_window_extent(), text.get_position()
        shift = max(panel.x0 - box.x0, 0) + min(panel.x1 - box.x1, 0)
        text.set_position((x + shift * 72 / figure.dpi, y))


def _dense(adata: AnnData, genes: Sequence[str]) -> NDArray[np.float64]:
    values = adata[:, list(genes)].X
    return np.asarray(values.toarray() if hasattr(values, "toarray") else values, dtype=np.float64)
