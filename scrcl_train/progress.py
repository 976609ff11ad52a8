"""Say what a long run is doing: a live bar in a terminal, a few lines a stage elsewhere. Always on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

Report = Callable[[int, Mapping[str, float], int], None]
"""Called after each epoch with its number from 1, its figures by name, and the number of epochs of the stage."""
LINES_PER_STAGE = 5
"""Lines printed for the epochs of one stage where there is no terminal."""


class TrainProgress:
    """Reports the stages of a run.

    Parameters
    ----------
    console
        Where to write; None says nothing.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console

    def say(self, text: str) -> None:
        """Print one line."""
        if self.console is not None:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """Cover one step; its time is printed at its end."""
        start = time.perf_counter()
        if self.console is not None and self.console.is_terminal:
            with self.console.status(title):
                yield
        else:
            yield
        self.say(f"{title}: {time.perf_counter() - start:.1f} s")

    @contextmanager
    def epochs(self, title: str, *, n_rounds: int = 1) -> Iterator[Report]:
        """Cover a stage of many epochs and give the function to call after each of them.

        Parameters
        ----------
        title
            Of the stage; with several rounds '1 of 3' and so on is put after it.
        n_rounds
            How many times the epochs are counted from 1.
        """
        titles = _Titles(title, n_rounds)
        if self.console is None:
            yield lambda _epoch, _figures, _n_epochs: None
        elif self.console.is_terminal:
            with self._bar() as bar:
                task = bar.add_task(title, total=None, figures="")
                yield lambda epoch, figures, n_epochs: bar.update(
                    task, description=titles(epoch), completed=epoch, total=n_epochs, figures=_format(figures)
                )
        else:
            yield self._lines(titles)

    def _bar(self) -> Progress:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
        )
        return Progress(*columns, console=self.console)

    def _lines(self, titles: _Titles) -> Report:
        start = time.perf_counter()

        def report(epoch: int, figures: Mapping[str, float], n_epochs: int) -> None:
            nonlocal start
            title = titles(epoch)
            every = max(1, n_epochs // LINES_PER_STAGE)
            if epoch % every == 0 or epoch == n_epochs:
                rate = epoch / max(time.perf_counter() - start, 1e-9)
                self.say(f"{title}: epoch {epoch}/{n_epochs}, {rate:.2f} epochs/s, {_format(figures)}")
            if epoch == n_epochs:
                start = time.perf_counter()  # of the next round, if there is one

        return report


class _Titles:
    """Title of a stage at an epoch: a new round begins where the epochs are counted anew."""

    def __init__(self, title: str, n_rounds: int) -> None:
        self._title, self._n_rounds = title, n_rounds
        self._round, self._last = 1, 0

    def __call__(self, epoch: int) -> str:
        if epoch <= self._last:
            self._round += 1
        self._last = epoch
        return f"{self._title} {self._round} of {self._n_rounds}" if self._n_rounds > 1 else self._title


def stderr_progress(*, quiet: bool = False) -> TrainProgress:
    """Report to stderr, or not at all."""
    return TrainProgress(None if quiet else Console(stderr=True))


def _format(figures: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
