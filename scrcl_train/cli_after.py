"""What follows training: `scrcl-train evaluate` and `scrcl-train biology`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from scrcl_infer import shell


def evaluate_cli(
    data: Annotated[
        Path, typer.Argument(metavar="FOUND.h5ad", help="With scrcl_* columns, from training or assigning.")
    ],
    labels: Annotated[
        str, typer.Option(metavar="OBS_KEY", help="The truth; of a coarser level's name: compares that level.")
    ],
    prefix: Annotated[str, typer.Option("--obs-prefix", metavar="TEXT", help="Of the columns.")] = "scrcl_",
    reliability: Annotated[
        Path | None,
        typer.Option(metavar="PICTURE", help="Draw confidence against accuracy here (.png, .pdf, .svg)."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing picture.")] = False,
) -> None:
    """Compare what was found or assigned with labels; prints JSON.

    Populations: ACC (Hungarian), NMI, ARI, macro-F1. Types, where there are confidences: accuracy, macro- and weighted
    F1 over the types that both sides have, calibration error, and how well cells of other types are told
    ('unknown' detection, AUROC) by the score that they are rejected by: strangeness, or confidence without it. Labels
    that are no type of the model are listed.
    """
    from scrcl_train.evaluate_file import evaluate_file
    from scrcl_train.picture import check_picture

    if reliability is not None:
        check_picture(reliability, force=force)
    scores = evaluate_file(data, labels, prefix=prefix)
    if reliability is not None:
        _draw(scores, reliability, force=force)
    typer.echo(json.dumps(_without_nan(scores), indent=2, allow_nan=False))


def _without_nan(value: object) -> object:
    """Return scores with null where there is no number, e.g. for bins without cells: JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _draw(scores: dict[str, Any], picture: Path, *, force: bool) -> None:
    from scrcl_infer.errors import InputError
    from scrcl_train.reliability import ReliabilityRow
    from scrcl_train.reliability_picture import draw_reliability

    types = scores.get("types", {})
    error = types.get("calibration_error")
    if error is None:
        msg = f"There are no confidences to draw: {types.get('reason', 'the file has none, or all cells are unknown')}."
        raise InputError(msg)
    draw_reliability([ReliabilityRow(**row) for row in types["reliability"]], error, picture, force=force)


def biology_cli(
    data: Annotated[Path, typer.Argument(metavar="FOUND.h5ad", help="From `scrcl-train ... --write-h5ad`.")],
    bundle: Annotated[str, typer.Argument(metavar="DIR|NAME", help="Model of the same run.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for figures and tables.")],
    gene_column: Annotated[
        str | None, typer.Option(metavar="VAR_KEY", help="As in training.  [default: the index of var]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that holds files.")] = False,
) -> None:
    """Write marker genes, dot plot, heatmap, UMAP, PAGA, and the genes that drive each population, as PNG and TSV."""
    shell.configure_logging()
    from scrcl_train.biology import write_biology

    write_biology(data, bundle, output, gene_column=gene_column, force=force)
    typer.echo(output)
