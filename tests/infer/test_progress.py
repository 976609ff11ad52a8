"""`scrcl_infer.progress`: a line in a terminal, few lines in a log, none when quiet."""

from __future__ import annotations

import io

import pytest

from scrcl_infer import progress
from scrcl_infer.progress import ProgressLine


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def draw(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, *, step: float, quiet: bool = False) -> str:
    monkeypatch.setattr(progress.time, "monotonic", Clock(step))
    with ProgressLine(stream, quiet=quiet) as line:
        for done in range(1000, 10_001, 1000):
            line(done, 10_000)
    return stream.getvalue()


def test_a_terminal_sees_one_line_redrawn_and_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    text = draw(Terminal(), monkeypatch, step=1.0)
    first, *_, blank, end = text.split("\r")[1:]
    assert first.rstrip() == "1,000 of 10,000 cells (10%), 1,000 cells/s, 9 s left"
    assert text.count("cells/s") == 9  # the last is not drawn: the summary follows
    assert "\n" not in text
    assert (blank.strip(), end) == ("", "")


def test_drawing_is_limited_to_ten_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    assert draw(Terminal(), monkeypatch, step=0.04).count("cells/s") == 3


def test_a_log_gets_a_line_every_half_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    assert draw(io.StringIO(), monkeypatch, step=1.0) == ""
    lines = draw(io.StringIO(), monkeypatch, step=16.0).splitlines()
    assert [line.split()[0] for line in lines] == ["2,000", "4,000", "6,000", "8,000"]


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_quiet_draws_nothing(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> None:
    assert draw(stream, monkeypatch, step=100.0, quiet=True) == ""
