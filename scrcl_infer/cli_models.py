"""`scrcl-models`: look at model bundles, verify them, and give their types other names."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from scrcl_infer.shell import run, version_callback

PROG = "scrcl-models"

app = typer.Typer(
    name=PROG,
    help="Look at model bundles and verify them. Nothing is downloaded: bundles are folders on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ModelArgument = Annotated[str, typer.Argument(help="Name of a model (see `list`), or the path of its folder.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=version_callback(PROG), is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Look at model bundles and verify them. Nothing is downloaded: bundles are folders on this machine."""


@app.command("list")
def list_cli(as_json: JsonOption = False) -> None:
    """List the models that can be used by name."""
    from scrcl_infer.catalog import list_bundles, search_folders

    rows, broken = [], []
    for folder in list_bundles():
        row, problem = describe(folder)
        rows.append(row)
        if problem:
            broken.append(problem)
    if as_json:
        _print_json(rows)
    else:
        _print_table(rows)
    for problem in broken:
        typer.echo(f"{PROG}: warning: {problem}", err=True)
    if not rows:
        searched = ", ".join(map(str, search_folders())) or "nowhere"
        typer.echo(f"No models found; searched {searched}. Set SCRCL_MODELS to a folder of bundles.", err=True)


@app.command("show")
def show_cli(model: ModelArgument, as_json: JsonOption = False) -> None:
    """Show what a model knows, what it was trained on, and its card.

    Example: scrcl-models show human-pbmc
    """
    from scrcl_infer.bundle import bundle_sha256, read_bundle
    from scrcl_infer.catalog import find_bundle

    folder, _ = find_bundle(model)
    bundle = read_bundle(folder)
    manifest = bundle.manifest
    if as_json:
        _print_json(manifest.to_dict() | {"path": str(folder), "sha256": bundle_sha256(folder)})
        return
    origin, spec, spatial = manifest.provenance, manifest.encoder, manifest.spatial
    probability = f"cells of a probability below {manifest.calibration.threshold:.3g}"
    rejects = probability if bundle.rejection is None else f"strange cells, and {probability}"
    whose = "their label" if spec.n_types else "the population found for them"
    auroc, accuracy = manifest.calibration.hidden_auroc, manifest.calibration.accuracy
    n_held_out = manifest.calibration.n_held_out
    right = [f"accuracy     {accuracy:.1%} of {n_held_out} held-out cells get the type of {whose}"] if accuracy else []
    told = "" if auroc is None else f"; classes hidden in training were told with an AUROC of {auroc:.2f}"
    lines = [
        f"name         {manifest.name}",
        f"path         {folder}",
        f"sha256       {bundle_sha256(folder)}",
        f"written by   {manifest.created_by}, schema {manifest.schema_version}",
        f"species      {manifest.genes.species}",
        f"genes        {len(manifest.genes.names)}, refused below {manifest.genes.min_overlap:.0%} of the evidence",
        f"populations  {spec.n_populations}",
        f"types        {len(manifest.cell_types)}: {', '.join(t.name for t in manifest.cell_types)}",
        *(
            [f"spatial      needs obsm['spatial']; averages over the {spatial.n_neighbors} nearest spots"]
            if spatial
            else []
        ),
        *(f"level        {level.key}: {', '.join(sorted(set(level.names)))}" for level in manifest.levels),
        *right,
        f"rejects      {rejects}; {manifest.calibration.kept_fraction:.1%} of held-out training cells are kept{told}",
        f"trained on   {origin.data_name}: {origin.n_cells} cells, preset {origin.preset}, seed {origin.seed}",
        f"data licence {origin.data_licence}",
        *([f"renamed from {origin.renamed_from}"] if origin.renamed_from else []),
    ]
    typer.echo("\n".join(lines) + "\n\n" + bundle.card.rstrip())


@app.command("verify")
def verify_cli(
    model: ModelArgument,
    as_json: JsonOption = False,
    threads: Annotated[int | None, typer.Option(min=1, help="CPUs to use; default: all that this process may.")] = None,
) -> None:
    """Verify a model on this machine: checksums, shapes, and a replay of stored cells. Exit code 5 when it fails.

    Example: scrcl-models verify ./my-bundle
    """
    from scrcl_infer.catalog import find_bundle
    from scrcl_infer.errors import BundleIntegrityError
    from scrcl_infer.verify import verify_bundle

    folder, _ = find_bundle(model)
    report = verify_bundle(folder, threads=threads)
    if as_json:
        _print_json(report.to_dict() | {"path": str(folder), "passed": report.passed})
    else:
        for check in report.checks:
            typer.echo(f"{'ok    ' if check.passed else 'FAILED'}  {check.name}: {check.detail}")
    if not report.passed:
        failed = ", ".join(check.name for check in report.checks if not check.passed)
        msg = f"{folder}: does not verify ({failed}). Do not use it: get it again from where it came from."
        raise BundleIntegrityError(msg)


@app.command("name")
def name_cli(
    model: ModelArgument,
    table: Annotated[
        Path, typer.Option("--map", metavar="TABLE", help="Columns population or type, name, and perhaps ontology_id.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="NEW_BUNDLE", help="Folder to write.")],
    force: Annotated[bool, typer.Option("--force", help="Replace another bundle that stands there.")] = False,
) -> None:
    """Give populations or types other names, in a new bundle with new checksums. MODEL itself is never changed.

    Example: scrcl-models name my-model --map names.csv -o my-named-model
    """
    from scrcl_infer.catalog import find_bundle
    from scrcl_infer.rename import rename_bundle_folder

    folder, _ = find_bundle(model)
    renamed = rename_bundle_folder(folder, table, output, force=force)
    for old, new in renamed.changes:
        typer.echo(f"{old} -> {new}", err=True)
    if renamed.dropped_ids:
        names = ", ".join(renamed.dropped_ids)
        typer.echo(
            f"{PROG}: warning: the old names' ontology ids were not kept for {names}: give them in the table.", err=True
        )
    before, after = renamed.temperatures
    if before != after:
        typer.echo(
            f"Populations were put together: calibrated anew, temperature {before:.2f} -> {after:.2f}.", err=True
        )
    typer.echo(renamed.folder)


def describe(folder: Path) -> tuple[dict[str, Any], str]:
    """Return one row of `list` for a bundle, and what is wrong with its manifest ('' if nothing).

    Returns
    -------
    tuple of dict and str
        'name' is the folder's, which is what finds the model; values are None when the manifest is unreadable.
    """
    from scrcl_infer.bundle import read_manifest
    from scrcl_infer.errors import BundleError

    row: dict[str, Any] = {"name": folder.name, "species": None, "types": None, "genes": None, "trained_on": None}
    problem = ""
    try:
        manifest = read_manifest(folder)
    except BundleError as error:
        problem = str(error)
    else:
        origin = manifest.provenance
        row |= {
            "species": manifest.genes.species,
            "types": len(manifest.cell_types),
            "genes": len(manifest.genes.names),
            "trained_on": f"{origin.data_name} ({origin.n_cells} cells)",
        }
    return row | {"path": str(folder)}, problem


def main() -> int:
    """Run the command; the exit codes are those of `scrcl_infer.errors`."""
    return run(app, prog=PROG)


def _print_json(data: object) -> None:
    typer.echo(json.dumps(data, indent=1, ensure_ascii=False))


def _print_table(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    table = [list(rows[0]), *([("-" if value is None else str(value)) for value in row.values()] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for line in table:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
