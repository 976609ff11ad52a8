"""The reliability diagram: confidence against accuracy in bins, with the cells in each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scrcl_train.picture import save_picture
from scrcl_train.reliability import ReliabilityRow


def draw_reliability(rows: Sequence[ReliabilityRow], error: float, path: Path, *, force: bool = False) -> None:
    """Draw accuracy against confidence, and below it the cells in each bin.

    Parameters
    ----------
    rows
        From `scrcl_train.reliability.compute_reliability`.
    error
        Expected calibration error, for the title.
    path, force
        The picture; see `scrcl_train.picture.save_picture`.
    """
    from matplotlib.figure import Figure

    filled = [row for row in rows if row.n_cells]
    figure = Figure(figsize=(4.5, 5.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
    upper.plot([row.confidence for row in filled], [row.accuracy for row in filled], marker="o", color="C0")
    upper.set(ylabel="share of right answers", ylim=(0, 1.03))
    upper.set_title(f"expected calibration error {error:.3f}, {sum(row.n_cells for row in rows):,} cells", fontsize=10)
    widths = [row.upper - row.lower for row in rows]
    lower.bar([row.lower for row in rows], [row.n_cells for row in rows], width=widths, align="edge", color="0.7")
    lower.set(xlabel="confidence", ylabel="cells", xlim=(0, 1))
    save_picture(figure, path, force=force)
