"""`scrcl-assign`: the shell around `Model.assign_file`. Answers go to stdout or to a file, all else to stderr."""

from __future__ import annotations

import signal
import sys
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
  # name the counts and the genes where guessing is not wanted
  scrcl-assign new.h5ad --layer counts --gene-column gene_ids -o types.parquet

\b
Exit codes: 0 done, 2 wrong usage, 3 input, 4 too few genes in common,
            5 model bundle, 6 output, 1 anything else
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
WIDE = {"max_content_width": 110}


class InputStateChoice(StrEnum):
    """What the matrix may be said to hold."""

    auto = "auto"
    counts = "counts"
    log1p10k = "log1p10k"


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
Report = Annotated[Path | None, typer.Option(metavar="FILE", help="Write a JSON report here.")]
Force = Annotated[bool, typer.Option("--force", help="Replace existing outputs, and foreign columns.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPUs to use.  [default: those allowed]")]
BlockSize = Annotated[int, typer.Option(min=1, help="Cells held in memory; does not change answers.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check model, input and output; assign nothing.")]
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
    obs_prefix: ObsPrefix = "scrcl_",
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
    from scrcl_infer.result import AssignOptions
    from scrcl_infer.target import Labels, Target, check_target

    options = AssignOptions(
        layer=layer,
        input_state=input_state.value,
        gene_column=gene_column,
        min_overlap=min_overlap,
        section=section,
        reject=reject,
        threads=threads,
        block_size=block_size,
    )
    target = Target(output, force=force, obs_prefix=obs_prefix, ontology=ontology)
    shell.configure_logging(quiet=quiet)
    # Whatever can be refused is refused before the model and the data are read.
    check_target(target, data)
    _check_report(report, data, target)
    loaded = _load(model, threads, quiet=quiet)
    Labels.from_manifest(loaded.manifest, target)  # refuses ontology ids that the model does not have
    if dry_run:
        _check(loaded, data, options)
    else:
        assign(loaded, data, target, options=options, report=report, quiet=quiet)


def assign(
    model: Model,
    data: Path,
    target: Target,
    *,
    options: AssignOptions,
    report: Path | None = None,
    quiet: bool = False,
) -> Summary:
    """Assign a file's cells with a progress line, tell the summary to stderr, and write the report.

    Parameters and errors are those of `Model.assign_file`; `report` is the path of the JSON report.
    """
    from scrcl_infer.report import add_run, format_summary, write_report
    from scrcl_infer.target import STDOUT, Labels

    with ProgressLine(sys.stderr, quiet=quiet) as progress:
        summary = model.assign_file(data, target, options=options, progress=progress)
    if report is not None:
        further = [column.key for column in Labels.from_manifest(model.manifest, target).further]
        write_report(add_run(summary, data, target, options, further=further), report, force=target.force)
    if quiet:
        lines = [f"{PROG}: warning: {warning}" for warning in summary.warnings]
    else:
        lines = [format_summary(summary)] + ([f"written  {target.path}"] if target.path != STDOUT else [])
    if lines:
        typer.echo("\n".join(lines), err=True)
    return summary


def main() -> None:
    """Entry point of `scrcl-assign`."""
    # A scheduler's stop must clean up like Ctrl-C does; 128 + 15 is what a shell reports for it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(shell.run(app, prog=PROG))


def _check_report(report: Path | None, data: Path, target: Target) -> None:
    from scrcl_infer.atomic import check_path
    from scrcl_infer.errors import OutputError

    if report is None:
        return
    check_path(report, force=target.force, inputs=(data,))
    if report.resolve() == target.path.resolve():
        msg = f"'{report}' is named for both the answers and the report. Give them different names."
        raise OutputError(msg)


def _load(model: str | None, threads: int | None, *, quiet: bool) -> Model:
    from scrcl_infer.catalog import find_bundle
    from scrcl_infer.pipeline import load

    folder, remark = find_bundle(model)
    if remark and not quiet:
        typer.echo(remark, err=True)
    return load(folder, threads=threads)


def _check(model: Model, data: Path, options: AssignOptions) -> None:
    matrix, genes = model.check(data, options=options)
    typer.echo(
        f"model    {model.manifest.name}: {len(model.manifest.cell_types)} types\n"
        f"matrix   {matrix.where} as {matrix.state}. {matrix.reason}\n"
        f"genes    {genes.n_found:,} of {genes.n_model:,} found, {genes.weighted_overlap:.1%} of the model's evidence "
        f"({genes.matched_by})\nNothing was assigned: this was a dry run.",
        err=True,
    )


if __name__ == "__main__":
    main()
