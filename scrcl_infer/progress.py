"""A line on stderr that says how far a run is: redrawn in a terminal, now and then a new one in a log."""

from __future__ import annotations

import time
from typing import Self, TextIO

REDRAW_S = 0.1
"""Seconds between two drawings in a terminal."""
LOG_S = 30.0
"""Seconds between two lines where the stream is no terminal."""


class ProgressLine:
    """Call it with the cells done and the cells there are; leave the context to clear it.

    Parameters
    ----------
    stream
        Where to draw.
    quiet
        Draw nothing.
    """

    def __init__(self, stream: TextIO, *, quiet: bool = False) -> None:
        self.stream = stream
        self.quiet = quiet
        self.terminal = stream.isatty()
        self.started = self.last = time.monotonic()
        self.width = 0

    def __enter__(self) -> Self:
        self.started = self.last = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        if self.terminal and self.width:
            self.stream.write("\r" + " " * self.width + "\r")
            self.stream.flush()

    def __call__(self, done: int, total: int) -> None:
        """Say that `done` of `total` cells are done."""
        now = time.monotonic()
        if self.quiet or done >= total or now - self.last < (REDRAW_S if self.terminal else LOG_S):
            return
        self.last = now
        rate = done / (now - self.started)
        text = (
            f"{done:,} of {total:,} cells ({done / total:.0%}), {rate:,.0f} cells/s, {(total - done) / rate:.0f} s left"
        )
        if self.terminal:
            self.stream.write("\r" + text.ljust(self.width))
            self.width = len(text)
        else:
            self.stream.write(text + "\n")
        self.stream.flush()
