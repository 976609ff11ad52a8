"""Write pictures: which endings there are, and one file as a whole or not at all, the same bytes for the same data."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from scrcl_infer.atomic import check_path, write_atomically
from scrcl_infer.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

DPI = 150
STAMPS = {".png": "Software", ".pdf": "CreationDate", ".svg": "Date"}
"""What matplotlib writes of itself or of the time of day, by the picture's ending."""


def check_picture(path: Path, *, force: bool = False, inputs: tuple[Path, ...] = ()) -> None:
    """Refuse a picture that cannot be written.

    Parameters
    ----------
    path, force, inputs
        As for `scrcl_infer.atomic.check_path`.

    Raises
    ------
    OutputError
        Its ending names no picture, or as of `check_path`.
    """
    if path.suffix not in STAMPS:
        msg = f"'{path}' must end in one of {', '.join(STAMPS)}."
        raise OutputError(msg)
    check_path(path, force=force, inputs=inputs)


def save_picture(figure: Figure, path: Path, *, force: bool = False) -> None:
    """Draw a figure into a file.

    Raises
    ------
    OutputError
        As of `check_picture`; or the operating system refuses.
    """
    check_picture(path, force=force)
    from matplotlib import rc_context

    drawn = io.BytesIO()
    with rc_context({"svg.hashsalt": "scrcl"}):  # else the names within an SVG are drawn at random
        figure.savefig(drawn, format=path.suffix[1:], dpi=DPI, metadata={STAMPS[path.suffix]: None})
    write_atomically(path, drawn.getvalue(), force=force)
