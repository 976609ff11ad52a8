"""Pictures of spots where they lie on the tissue, coloured by domain, type or anything else in `obs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.contract import UNKNOWN
from scrcl_infer.errors import InputError
from scrcl_infer.h5ad import H5ad
from scrcl_infer.spatial import Spots, find_nearest, read_spots
from scrcl_train.figures import choose_colours, order_names, shorten_names
from scrcl_train.picture import check_picture, save_picture
from scrcl_train.write import CELL_TYPE, POPULATION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


PANEL = 5.0
"""Inches of a picture's longer side."""
FILL = 0.8
"""Diameter of a dot, as a share of the distance between neighbouring spots."""
GREY = (0.8, 0.8, 0.8, 1.0)
COLOUR_MAP = "viridis"
"""Of columns of fractions."""


def draw_tissue_file(
    h5ad: Path, target: Path, *, columns: Sequence[str], section_key: str | None = None, force: bool = False
) -> Path:
    """Draw columns of a file's `obs` on the tissue, and return the picture's path.

    Parameters
    ----------
    h5ad
        File with `obsm['spatial']`, e.g. from `scrcl-train --write-h5ad` or `scrcl-assign -o FILE.h5ad`.
    target
        `.png`, `.pdf` or `.svg`.
    columns
        Columns of `obs`, side by side. In `scrcl_population`, spots whose `scrcl_cell_type` is 'unknown' are 'unknown',
        too: the model rejected them, and their population is only the nearest.
    section_key
        Column of `obs` that tells sections apart, one below the other.
    force
        Replace an existing picture.

    Raises
    ------
    InputError
        The file has no coordinates or not these columns.
    OutputError
        The picture exists, or has another ending.
    """
    check_picture(target, force=force, inputs=(h5ad,))
    with H5ad(h5ad) as source:
        if source.n_cells == 0:
            msg = f"{h5ad} holds no spots. Give a file with some."
            raise InputError(msg)
        spots = read_spots(source, section_key=section_key, otherwise="")
        groups = {key: _groups(source.obs_column(key)) for key in columns}
        if POPULATION in groups and CELL_TYPE in source.obs_keys():
            groups[POPULATION][source.obs_column(CELL_TYPE) == UNKNOWN] = UNKNOWN
        names = (
            None if section_key is None else np.array([str(v) for v in source.obs_column(section_key)], dtype=object)
        )
    titles = {int(n): "" if names is None else str(names[spots.section == n][0]) for n in np.unique(spots.section)}
    draw_tissue(spots, groups, target, titles=titles, force=force)
    return target


def draw_tissue(
    spots: Spots,
    groups: Mapping[str, NDArray[Any]],
    path: Path,
    *,
    titles: Mapping[int, str] | None = None,
    force: bool = False,
) -> None:
    """Draw each section once per grouping; y grows downwards, as in the image that Visium places belong to.

    Parameters
    ----------
    spots
        Where the n spots lie; of three coordinates the first two are drawn.
    groups
        Title -> (n,) group of each spot, 'unknown' in grey; or (n,) fractions such as confidences, with a colour bar.
    path, force
        The picture; see `scrcl_train.picture.save_picture`.
    titles
        Section number -> its name.
    """
    from matplotlib.figure import Figure

    sections = np.unique(spots.section)
    size = (PANEL * len(groups) + 1.5, PANEL * len(sections))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(sections), len(groups), squeeze=False)
    for column, (title, values) in enumerate(groups.items()):
        colours = _colour(values, figure, axes[:, column].tolist())
        for row, number in enumerate(sections):
            axis, own = axes[row, column], spots.section == number
            places = spots.places[own, :2]
            diameter = FILL * _spacing(places) * PANEL * 0.85 * 72 / max(float(np.ptp(places, axis=0).max()), 1e-9)
            axis.scatter(*places.T, s=min(diameter, 20) ** 2, color=colours[own], linewidths=0)
            axis.set(
                aspect="equal", xticks=[], yticks=[], title=f"{title}  {(titles or {}).get(int(number), '')}".strip()
            )
            axis.invert_yaxis()
    save_picture(figure, path, force=force)


def _colour(values: NDArray[Any], figure: Figure, axes: list[Axes]) -> NDArray[np.float64]:
    """Return each spot's colour (n, 4), and put the key of the colours beside the column of panels."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize, to_rgba

    if values.dtype.kind == "f":
        there = np.isfinite(values)
        mappable = ScalarMappable(Normalize(*np.quantile(values[there], [0, 1])) if there.any() else None, COLOUR_MAP)
        figure.colorbar(mappable, ax=axes, shrink=0.6)
        colours = np.tile(np.array(GREY), (len(values), 1))
        colours[there] = colormaps[COLOUR_MAP](mappable.norm(values[there]))
        return colours
    named = order_names(set(values) - {UNKNOWN})
    table = {name: to_rgba(colour) for name, colour in zip(named, choose_colours(len(named)), strict=True)}
    table[UNKNOWN] = GREY
    shown = [name for name in (*named, UNKNOWN) if name in set(values)]
    for name, short in zip(shown, shorten_names(shown), strict=True):
        axes[0].scatter([], [], color=[table[name]], label=short, s=30)
    axes[0].legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)
    return np.array([table[value] for value in values], dtype=np.float64)


def _groups(values: NDArray[Any]) -> NDArray[Any]:
    """Fractions as they are; everything else as names, also whole numbers, which are clusters more often than not."""
    if values.dtype.kind == "f" and np.any(values[np.isfinite(values)] % 1):
        return values.astype(np.float64)
    return np.array([_name(value) for value in values], dtype=object)


def _spacing(places: NDArray[np.float64]) -> float:
    """Median distance of a spot to its nearest."""
    if len(places) < 2:
        return 1.0
    nearest = places[find_nearest(places, 1)[:, 0]]
    return float(np.median(np.linalg.norm(places - nearest, axis=1)))


def _name(value: object) -> str:
    text = UNKNOWN if value is None else str(value)
    return UNKNOWN if text == "nan" else text
