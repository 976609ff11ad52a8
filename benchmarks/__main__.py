"""`python -m benchmarks clustering|ablation|spatial|transfer|robustness|distillation|unknown`."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.methods import Method
from scrcl_infer.errors import InputError, ScrclError

Finder = Callable[[str, tuple[Method, ...]], Method | None]

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)

SetsOption = Annotated[str, typer.Option("--sets", help="'all', 'nine', or file names without .h5ad, with commas.")]
SeedsOption = Annotated[int, typer.Option("--seeds", min=1, help="Seeds 0, 1, ... to run.")]
MethodsOption = Annotated[
    str, typer.Option("--methods", help="'all', 'peers', or names with commas; 'paper@N' is 'paper' with N epochs.")
]
JobsOption = Annotated[int, typer.Option("--jobs", min=1, help="Worker processes.")]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, help="OMP threads of each worker.")]
StoredOption = Annotated[bool, typer.Option("--stored", help="Make no calls: the table of those already made.")]
OutputOption = Annotated[Path | None, typer.Option("--output", help="Folder of the tables [benchmarks/results].")]


BENCHMARKS = {
    "clustering": (5, "Cluster the labelled scRNA-seq sets with every method; print and save the table."),
    "ablation": (
        5,
        "Cluster the labelled scRNA-seq sets with one part at a time taken out; print and save the table.",
    ),
    "spatial": (5, "Find the domains of the tissue sections with every method; print and save the table."),
    "transfer": (5, "Train on one batch, map another, with every method; print and save the table."),
    "robustness": (
        2,
        "Train once, map the query with fewer counts and fewer genes; print and save the table, draw the curves.",
    ),
    "distillation": (
        3,
        "Compare the shipped student with ones that lack the teacher or the changed cells; print and save the table.",
    ),
    "unknown": (1, "Leave a type out of training and tell its cells from known ones; print and save the table."),
}
"""Name -> seeds unless asked otherwise, and what it does."""


def make_command(name: str, n_seeds: int) -> Callable[..., None]:
    """Return the command of one benchmark."""

    def command(  # noqa: PLR0917 - options
        sets: SetsOption = "all",
        seeds: SeedsOption = n_seeds,
        methods: MethodsOption = "all",
        jobs: JobsOption = 1,
        threads: ThreadsOption = 1,
        stored: StoredOption = False,  # noqa: FBT002 - an option of the shell
        output: OutputOption = None,
    ) -> None:
        run_benchmark(name, sets, tuple(range(seeds)), methods, (0 if stored else jobs, threads), output)

    return command


for _name, (_seeds, _help) in BENCHMARKS.items():
    app.command(_name, help=_help)(make_command(_name, _seeds))


def run_benchmark(  # noqa: PLR0917 - one argument per option of the commands
    name: str, sets: str, seeds: tuple[int, ...], methods: str, workers: tuple[int, int], output: Path | None
) -> None:
    """Run one benchmark (`workers`: jobs and threads), print its Markdown to stdout and write both files."""
    from benchmarks.cache import Cache
    from benchmarks.datasets import choose_sets
    from benchmarks.runner import Plan, list_calls, run_plan
    from benchmarks.table import RESULTS_FOLDER, format_table, write_table

    module = importlib.import_module(f"benchmarks.{name}")
    chosen = choose_methods(methods, module.METHODS, module.find_method)
    plan = Plan(name, chosen, getattr(module, "choose_sets", choose_sets)(sets, module.SETS), seeds, *workers)
    cache = Cache()
    results = run_plan(plan, cache)
    table = module.make_table(plan, results, {item.name: item.load().cells.n_types for item in plan.sets})
    sys.stdout.write(format_table(table))
    if output is None:
        cache.publish(name, [call for call, _ in list_calls(plan)])
    write = getattr(module, "write_results", write_table)
    for path in write(table, output or RESULTS_FOLDER):
        logging.getLogger("benchmarks").info("wrote %s", path)


def choose_methods(names: str, methods: tuple[Method, ...], find: Finder) -> tuple[Method, ...]:
    """Turn the option `--methods` into methods.

    Raises
    ------
    InputError
        A name is unknown; the text lists the names.
    """
    ours = tuple(m for m in methods if any(c.is_ours for c in m.columns))
    peers = tuple(m for m in methods if m not in ours)
    if names == "all":
        return methods
    chosen = []
    for name in (part.strip() for part in names.split(",")):
        for method in peers if name == "peers" else (find(name, methods),):
            if method is None:
                there = ", ".join(m.name for m in methods)
                msg = f"Unknown method {name!r}. Methods: {there}; or 'all', 'peers'."
                raise InputError(msg)
            chosen.append(method)
    return tuple(chosen)


def main() -> None:
    """Run the app; errors raised on purpose become one line on stderr and an exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        app(prog_name="python -m benchmarks")
    except ScrclError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
