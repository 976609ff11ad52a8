from __future__ import annotations

import io

import pytest
from rich.console import Console

from scrcl_train.progress import LINES_PER_STAGE, TrainProgress, stderr_progress


def test_without_a_terminal_a_stage_prints_a_few_lines_with_rate_and_figures() -> None:
    stream = io.StringIO()
    progress = TrainProgress(Console(file=stream, width=200))
    with progress.epochs("Teacher") as report:
        for epoch in range(1, 101):
            report(epoch, {"loss": 1 / epoch}, 100)
    lines = stream.getvalue().splitlines()
    assert len(lines) == LINES_PER_STAGE
    assert lines[-1].startswith("Teacher: epoch 100/100")
    assert "epochs/s" in lines[-1]
    assert "loss 0.01" in lines[-1]


def test_a_terminal_gets_a_bar_that_ends_complete() -> None:
    stream = io.StringIO()
    progress = TrainProgress(Console(file=stream, force_terminal=True, width=200))
    with progress.epochs("Student") as report:
        for epoch in range(1, 4):
            report(epoch, {"loss": 0.5}, 3)
    with progress.step("Writing"):
        pass
    assert "3/3" in stream.getvalue()
    assert "Writing: " in stream.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_rounds_of_a_stage_are_told_apart(*, terminal: bool) -> None:
    stream = io.StringIO()
    progress = TrainProgress(Console(file=stream, width=200, force_terminal=terminal))
    with progress.epochs("Calibration", n_rounds=3) as report:
        for _ in range(3):
            for epoch in (1, 2):
                report(epoch, {"loss": 0.5}, 2)
    text = stream.getvalue()
    if terminal:
        assert "Calibration 3 of 3" in text
    else:
        titles = [line.partition(":")[0] for line in text.splitlines()]
        assert titles == [f"Calibration {n} of 3" for n in (1, 1, 2, 2, 3, 3)]


def test_markup_in_a_message_is_printed_as_it_is() -> None:
    stream = io.StringIO()
    TrainProgress(Console(file=stream, width=200)).say("cells of [bold] type")
    assert stream.getvalue() == "cells of [bold] type\n"


def test_quiet_says_nothing(capsys: object) -> None:
    progress = stderr_progress(quiet=True)
    with progress.step("Reading"), progress.epochs("Teacher") as report:
        report(1, {"loss": 1.0}, 1)
    progress.say("text")
    assert capsys.readouterr() == ("", "")  # type: ignore[attr-defined]
