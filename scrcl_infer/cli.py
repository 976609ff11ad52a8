"""`scrcl-assign`: the shell around `Model.assign_file`. Answers go to stdout or to a file, all else to stderr."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scrcl_infer import shell
from scrcl_infer.progress import ProgressLine

if TYPE_CHECKING:
    from scrcl_infer.pipeline import Model
    from scrcl_infer.result import AssignOptions, Summary
    from scrcl_infer.target import Target

PROG = "scrcl-assign"
# The lone \b keeps Typer from wrapping the lines below it.
EXAMPLES = """\b
Examples:
  # table on standard output, default model
  scrcl-assign new.h5ad > types.tsv
  # a copy with obs, obsm and uns added, and a report for the pipeline
  scrcl-assign new.h5ad -m MODEL -o typed.h5ad --report report.json
  # a page to look at, and the genes that drove each type
  scrcl-assign new.h5ad -o types.tsv --report report.html --explain genes.csv
  # name the counts and the genes where guessing is not wanted
  scrcl-assign new.h5ad --layer counts --gene-column gene_ids -o types.parquet

\b
Exit codes: 0 done, 2 wrong usage, 3 input, 4 too few genes in common,
            5 model bundle, 6 output, 1 anything else
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
WIDE = {"max_content_width": 110, "help_option_names": ["-h", "--help"]}


class InputStateChoice(StrEnum):
    """What the matrix may be said to hold."""

    auto = "auto"
    counts = "counts"
    log1p10k = "log1p10k"


@dataclass(frozen=True)
class Extras:
    """Files to write beside the answers."""

    reports: tuple[Path, ...] = ()
    """`.html` or `.htm` are pages to look at, all others JSON."""
    explain: Path | None = None
    """Table of the genes that drove each type."""

    @property
    def paths(self) -> tuple[Path, ...]:
        """All of them."""
        return (*self.reports, *([self.explain] if self.explain else []))


# Each option as a type, so that the command below reads as a list of what it takes.
Data = Annotated[Path, typer.Argument(metavar="NEW.h5ad", help="Cells to assign. Never changed.")]
ModelName = Annotated[
    str | None, typer.Option("--model", "-m", metavar="DIR|NAME", help="Model bundle; see `scrcl-models list`.")
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="*.h5ad (a copy), *.csv, *.tsv (also .gz), *.parquet; - is TSV on stdout.",
    ),
]
Layer = Annotated[
    str | None, typer.Option(metavar="X|raw|NAME", help="Matrix to read.  [default: the first that holds counts]")
]
InputState = Annotated[InputStateChoice, typer.Option(help="What that matrix holds.")]
GeneColumn = Annotated[
    str | None, typer.Option(metavar="VAR_KEY", help="Symbols or Ensembl ids.  [default: what matches best]")
]
MinOverlap = Annotated[
    float | None,
    typer.Option(
        "--min-overlap",
        "--min-gene-overlap",
        min=0.0,
        max=1.0,
        help="Least share of the model's evidence that must be in the input.  [default: the model's]",
    ),
]
Section = Annotated[
    str | None, typer.Option(metavar="OBS_KEY", help="Tells tissue sections apart, for spatial models.")
]
Ontology = Annotated[
    bool, typer.Option("--ontology", help="Write cell_type_ontology_term_id too, as CELLxGENE wants it.")
]
Reject = Annotated[bool, typer.Option("--reject/--no-reject", help="Call uncertain cells 'unknown'.")]
ObsPrefix = Annotated[str, typer.Option(metavar="TEXT", help="Put before the column names.")]
Vote = Annotated[bool, typer.Option("--vote", help="Let neighbouring cells of the file decide uncertain types.")]
Explain = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the genes that drove each type here: *.csv, *.tsv.")
]
Report = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Write a report here: *.html to look at, else JSON. May be given twice."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace existing outputs, and foreign columns.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPUs to use.  [default: those allowed]")]
BlockSize = Annotated[int, typer.Option(min=1, help="Cells held in memory; does not change answers.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check model, input and outputs; assign and write nothing.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")]
Version = Annotated[
    bool, typer.Option("--version", callback=shell.version_callback(PROG), is_eager=True, help="Show it and exit.")
]


@app.command(epilog=EXAMPLES, context_settings=WIDE)
def assign_cli(
    data: Data,
    model: ModelName = None,
    output: Output = Path("-"),
    layer: Layer = None,
    input_state: InputState = InputStateChoice.auto,
    gene_column: GeneColumn = None,
    min_overlap: MinOverlap = None,
    section: Section = None,
    reject: Reject = True,
    vote: Vote = False,
    obs_prefix: ObsPrefix = "scrcl_",
    explain: Explain = None,
    ontology: Ontology = False,
    report: Report = None,
    force: Force = False,
    threads: Threads = None,
    block_size: BlockSize = 2048,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    version: Version = False,
) -> None:
    """Assign cells to types with a trained model, offline, in constant memory."""
    del version
    _limit_blas(threads)
    from scrcl_infer.result import AssignOptions
    from scrcl_infer.target import Labels, Target, check_target

    options = AssignOptions(
        layer=layer,
        input_state=input_state.value,
        gene_column=gene_column,
        min_overlap=min_overlap,
        section=section,
        reject=reject,
        vote=vote,
        explain=explain is not None,
        threads=threads,
        block_size=block_size,
    )
    target = Target(output, force=force, obs_prefix=obs_prefix, ontology=ontology)
    shell.configure_logging(quiet=quiet)
    # Whatever can be refused is refused before the model and the data are read.
    check_target(target, data)
    extras = Extras(tuple(report or ()), explain)
    _check_extras(extras, data, target)
    loaded = _load(model, threads, quiet=quiet)
    Labels.from_manifest(loaded.manifest, target)  # refuses ontology ids that the model does not have
    if dry_run:
        from scrcl_infer.dry_run import check_run

        files = _list_files(target, extras)
        typer.echo(check_run(loaded, data, target, options=options, files=files), err=True)
    else:
        assign(loaded, data, target, options=options, extras=extras, quiet=quiet)


def assign(
    model: Model,
    data: Path,
    target: Target,
    *,
    options: AssignOptions,
    extras: Extras | None = None,
    quiet: bool = False,
) -> Summary:
    """Assign a file's cells with a progress line, tell the summary to stderr, and write what else was asked for.

    Parameters and errors are those of `Model.assign_file`; `extras` are the further files to write.
    """
    from scrcl_infer.report import format_summary

    with ProgressLine(sys.stderr, quiet=quiet) as progress:
        summary = model.assign_file(data, target, options=options, progress=progress)
    if extras is not None:
        _write_extras(extras, summary, data, target, options=options, model=model)
    if quiet:
        lines = [f"{PROG}: warning: {warning}" for warning in summary.warnings]
    else:
        lines = [format_summary(summary), *(f"written  {path}" for path in _list_files(target, extras))]
    if lines:
        typer.echo("\n".join(lines), err=True)
    return summary


def main() -> None:
    """Entry point of `scrcl-assign`."""
    # A scheduler's stop must clean up like Ctrl-C does; 128 + 15 is what a shell reports for it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(shell.run(app, prog=PROG))


def _limit_blas(threads: int | None) -> None:
    """Hold the vote's matrix products to as many CPUs: numpy's BLAS reads these once, when numpy is loaded."""
    if threads is not None and "numpy" not in sys.modules:
        for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
            os.environ[name] = str(threads)


def _check_extras(extras: Extras, data: Path, target: Target) -> None:
    from scrcl_infer.atomic import check_path
    from scrcl_infer.errors import OutputError
    from scrcl_infer.explain import check_explanation
    from scrcl_infer.target import STDOUT

    if extras.explain is not None:
        check_explanation(extras.explain, force=target.force, inputs=(data,))
    for report in extras.reports:
        if report == STDOUT:
            msg = "A report cannot go to standard output, which is for answers. Name a file: --report report.json."
            raise OutputError(msg)
        check_path(report, force=target.force, inputs=(data,))
    paths = [target.path, *extras.paths]
    resolved = [path.resolve() for path in paths]
    twice = next((path for i, path in enumerate(paths) if resolved[i] in resolved[:i]), None)
    if twice is not None:
        msg = f"'{twice}' is named for two outputs. Give them different names."
        raise OutputError(msg)


def _list_files(target: Target, extras: Extras | None) -> list[Path]:
    """Return the files that a run writes; standard output is none."""
    from scrcl_infer.target import STDOUT

    answers = [] if target.path == STDOUT else [target.path]
    return [*answers, *(extras.paths if extras is not None else ())]


def _write_extras(
    extras: Extras, summary: Summary, data: Path, target: Target, *, options: AssignOptions, model: Model
) -> None:
    from dataclasses import replace

    from scrcl_infer.explain import write_explanation
    from scrcl_infer.report import add_run, write_report
    from scrcl_infer.report_html import ENDINGS, write_html
    from scrcl_infer.target import Labels

    if extras.explain is not None:
        write_explanation(summary.extra["explanation"], extras.explain, force=target.force)
    used = replace(options, threads=model.count_threads(options))
    labels = Labels.from_manifest(model.manifest, target, strangeness=model.measures_strangeness)
    further = [column.key for column in labels.further]
    full = add_run(summary, data, target, used, further=further) if extras.reports else summary
    for report in extras.reports:
        if report.suffix.lower() in ENDINGS:
            write_html(full, model.manifest, report, force=target.force)
        else:
            write_report(full, report, force=target.force)


def _load(model: str | None, threads: int | None, *, quiet: bool) -> Model:
    from scrcl_infer.catalog import find_bundle
    from scrcl_infer.pipeline import load

    folder, remark = find_bundle(model)
    if remark and not quiet:
        typer.echo(remark, err=True)
    return load(folder, threads=threads)


if __name__ == "__main__":
    main()
