"""`scrcl-train`: the shell around `scrcl_train.pipeline.train` and what follows a training run.

`scrcl-train DATA.h5ad -o BUNDLE` is short for `scrcl-train fit DATA.h5ad -o BUNDLE`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scrcl_infer import shell
from scrcl_infer.cli import InputStateChoice
from scrcl_infer.errors import ScrclError
from scrcl_train.cli_after import biology_cli, evaluate_cli
from scrcl_train.cli_words import (
    DeviceChoice,
    choose_preset,
    describe_commands,
    is_no_path,
    parse_n_populations,
    split_names,
)

if TYPE_CHECKING:
    from scrcl_train.options import TrainOptions
    from scrcl_train.pipeline import TrainResult

PROG = "scrcl-train"
FIT = "fit"
WIDE = {"max_content_width": 110, "help_option_names": ["-h", "--help"]}
# The lone \b keeps Typer from wrapping the lines below it.
EXAMPLES = """\b
Examples:
  # find populations without labels, estimate how many, export a model
  scrcl-train cells.h5ad -o my-model
  # name them from a column of obs, and learn to tell its types
  scrcl-train cells.h5ad -o my-model --labels cell_type --batch donor
  # types and two coarser levels of them; or names from marker genes
  scrcl-train cells.h5ad -o my-model --labels subtype,type,lineage
  scrcl-train cells.h5ad -o my-model --markers markers.csv
  # keep the populations and the embedding of the training cells too
  scrcl-train cells.h5ad -o my-model --write-h5ad cells.scrcl.h5ad
  # tissue sections: domains, and a model for other sections
  scrcl-train slices.h5ad -o my-domains --spatial --section slice -k 7 --write-h5ad found.h5ad
  scrcl-train tissue found.h5ad -o domains.png --section slice
  # then assign other cells
  scrcl-assign new.h5ad --model my-model -o new.types.h5ad
  # the whole way on simulated cells, about two minutes
  scrcl-train demo

\b
Options of training: scrcl-train fit --help
Exit codes: 0 done, 2 wrong usage, 3 input, 5 model bundle, 6 output, 7 training, 8 export, 1 anything else
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True, epilog=EXAMPLES, context_settings=WIDE, no_args_is_help=True)
def scrcl_train_cli(
    version: Annotated[
        bool, typer.Option("--version", callback=shell.version_callback(PROG), is_eager=True, help="Show it and exit.")
    ] = False,
) -> None:
    """Find cell populations without labels (scRCL) and export a model that assigns new cells.

    scrcl-train DATA.h5ad -o BUNDLE [OPTIONS]
    """
    del version


@app.command(FIT, epilog=EXAMPLES, context_settings=WIDE)
def fit_cli(
    data: Annotated[Path, typer.Argument(metavar="DATA.h5ad", help="Raw counts. Never changed.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="BUNDLE", help="Folder to write the model to.")],
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="OBS_KEY,...",
            help="Names populations and adds a type head; finest first, then coarser. Never seen by the clustering.",
        ),
    ] = None,
    markers: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE", help="Names populations by marker genes: columns type and gene. Not with --labels."
        ),
    ] = None,
    ontology_ids: Annotated[
        Path | None,
        typer.Option(
            metavar="TABLE", help="Cell Ontology ids: columns name and id.  [default: the data's own, if any]"
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(metavar="OBS_KEY", help="Donor, run or plate of each cell; populations then span batches."),
    ] = None,
    spatial: Annotated[
        bool, typer.Option("--spatial", help="Tissue sections: find domains, with the places in obsm['spatial'].")
    ] = False,
    section: Annotated[
        str | None, typer.Option(metavar="OBS_KEY", help="Tells tissue sections apart.  [default: one section]")
    ] = None,
    n_populations: Annotated[
        str, typer.Option("--n-populations", "-k", metavar="K|auto", help="How many populations to find.")
    ] = "auto",
    preset: Annotated[
        str, typer.Option(metavar="NAME", help="Settings: default, spatial, paper, paper:DATASET.")
    ] = "default",
    epochs: Annotated[int | None, typer.Option(min=1, help="Of the teacher.  [default: the preset's]")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, machine and threads: same bytes.")] = 0,
    device: Annotated[DeviceChoice, typer.Option(help="Where to train.")] = DeviceChoice.auto,
    layer: Annotated[
        str | None, typer.Option(metavar="X|raw|NAME", help="Matrix to read.  [default: the first that holds counts]")
    ] = None,
    input_state: Annotated[InputStateChoice, typer.Option(help="What that matrix holds.")] = InputStateChoice.auto,
    name: Annotated[str | None, typer.Option(help="Name of the model.  [default: the folder's]")] = None,
    data_licence: Annotated[str, typer.Option(metavar="TEXT", help="Licence of the data, for the card.")] = "unknown",
    gene_column: Annotated[
        str | None, typer.Option(metavar="VAR_KEY", help="Has the genes' names.  [default: the index of var]")
    ] = None,
    gene_ids: Annotated[
        Path | None,
        typer.Option(metavar="TABLE", help="Ensembl ids and symbols, where the data has one only."),
    ] = None,
    card_notes: Annotated[
        Path | None, typer.Option(metavar="FILE.md", help="Put into the model card, e.g. figures on other data.")
    ] = None,
    write_h5ad: Annotated[
        Path | None, typer.Option(metavar="OUT.h5ad", help="Copy of the data with what was found in it.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Log, settings, checkpoints.  [default: BUNDLE.run]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace existing outputs.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")] = False,
) -> None:
    """Train on DATA.h5ad and write a model bundle."""
    wanted = parse_n_populations(n_populations)
    preset = choose_preset(preset, section, spatial=spatial)
    shell.configure_logging(quiet=quiet)
    from scrcl_train.options import TrainOptions
    from scrcl_train.presets import get_preset

    options = TrainOptions(
        config=get_preset(preset, epochs=epochs),
        label_keys=() if labels is None else split_names(labels),
        markers=markers,
        ontology_ids=ontology_ids,
        batch_key=batch,
        section_key=section,
        n_populations=wanted,
        layer=layer,
        input_state=input_state.value,
        seed=seed,
        device=device.value,
        name=name,
        data_licence=data_licence,
        run_dir=run_dir,
        resume=resume,
        force=force,
        write_h5ad=write_h5ad,
        gene_column=gene_column,
        gene_ids=gene_ids,
        card_notes=card_notes,
    )
    result = fit(data, output, options, quiet=quiet)
    if not quiet:
        typer.echo(_summary(result, write_h5ad, gene_column), err=True)
    typer.echo(result.folder)


def fit(data: Path, output: Path, options: TrainOptions, *, quiet: bool = False) -> TrainResult:
    """Run `scrcl_train.pipeline.train` with progress on stderr; where it is interrupted, say how to go on."""
    from scrcl_train.checkpoint import RUN_FILES
    from scrcl_train.pipeline import train
    from scrcl_train.preflight import name_run_dir
    from scrcl_train.progress import stderr_progress

    try:
        return train(data, output, options, progress=stderr_progress(quiet=quiet))
    except KeyboardInterrupt:
        run_dir = name_run_dir(output, options)
        if (run_dir / RUN_FILES.checkpoint).exists():
            text = f"The same command with --resume goes on from the last checkpoint in {run_dir}."
            typer.echo(f"{PROG}: stopped. {text}", err=True)
        raise


@app.command("tissue", context_settings=WIDE)
def tissue_cli(
    found: Annotated[Path, typer.Argument(metavar="FOUND.h5ad", help="From --write-h5ad, or from scrcl-assign.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="PICTURE", help="*.png, *.pdf or *.svg.")],
    color: Annotated[
        str, typer.Option("--color", metavar="OBS_KEY,...", help="What to show, side by side.")
    ] = "scrcl_population",
    section: Annotated[str | None, typer.Option(metavar="OBS_KEY", help="One row of pictures per section.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing picture.")] = False,
) -> None:
    """Draw the domains of spots where they lie on the tissue."""
    from scrcl_train.tissue import draw_tissue_file

    typer.echo(draw_tissue_file(found, output, columns=split_names(color), section_key=section, force=force))


@app.command("demo", context_settings=WIDE)
def demo_cli(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to make.")] = Path("scrcl-demo"),
    seed: Annotated[int, typer.Option(min=0, help="Of simulation and training.")] = 0,
    device: Annotated[DeviceChoice, typer.Option(help="Where to train.")] = DeviceChoice.auto,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the result.")] = False,
) -> None:
    """Simulate two batches, train on one, assign the other, and say how well it went (about two minutes)."""
    shell.configure_logging(quiet=quiet)
    from scrcl_train.demo import format_result, run_demo
    from scrcl_train.progress import stderr_progress

    typer.echo(format_result(run_demo(output, seed=seed, device=device.value, progress=stderr_progress(quiet=quiet))))


FOLLOWING = [
    app.command(name, context_settings=WIDE)(function)
    for name, function in (("evaluate", evaluate_cli), ("biology", biology_cli))
]
"""The commands of `scrcl_train.cli_after`."""


def main() -> None:
    """Run the command; the entry point of the installed script."""
    # Waiting OpenMP threads must not spin: where cores are shared, spinning made training ten times slower (measured).
    # It has to be said before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    commands = [command.name for command in app.registered_commands if command.name]
    if len(sys.argv) > 1 and sys.argv[1] not in {*commands, "--help", "-h", "--version"}:
        if is_no_path(sys.argv[1]):
            sys.stderr.write(f"{PROG}: error: {describe_commands(sys.argv[1], commands, prog=PROG)}\n")
            sys.exit(2)
        sys.argv.insert(1, FIT)
    try:
        code = shell.run(app, prog=PROG)
    except ModuleNotFoundError as error:
        # The base install assigns only; its users meet this command too.
        text = f"{PROG}: error: {error.name} is not installed. Training needs more: pip install 'scrcl[train]'\n"
        sys.stderr.write(text)
        code = ScrclError.exit_code
    sys.exit(code)


def _summary(result: TrainResult, write_h5ad: Path | None, gene_column: str | None) -> str:
    manifest = result.bundle.manifest
    calibration = manifest.calibration
    error = calibration.expected_calibration_error
    lines = [
        f"{len(manifest.populations)} populations, {len(manifest.cell_types)} types; torch and onnxruntime differ by "
        f"{manifest.parity.max_abs_diff:.1e} at most over {manifest.parity.n_cells:,} cells, labels agree.",
        "Held-out training cells: "
        + ("" if calibration.accuracy is None else f"{calibration.accuracy:.1%} are given their type, ")
        + f"{calibration.kept_fraction:.1%} keep their answer"
        + ("." if error is None else f", calibration error {error:.3f}."),
        *result.naming,
        f"Model:        {result.folder}",
        f"Log:          {result.run_dir}",
    ]
    if write_h5ad is not None:
        lines.append(f"Annotated:    {write_h5ad}")
        genes = f" --gene-column {gene_column}" if gene_column else ""
        follow = f"scrcl-train biology {write_h5ad} {result.folder} -o {result.folder}.biology{genes}"
        lines.append(f"Look closer:  {follow}")
    if not manifest.encoder.n_types:
        lines.append(f"Name them:    scrcl-models name {result.folder} --map NAMES.csv -o {result.folder}-named")
    lines.append(f"Assign cells: scrcl-assign NEW.h5ad --model {result.folder} -o NEW.types.h5ad")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
