"""What follows training: `scrcl-train evaluate` and `scrcl-train biology`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scrcl_infer import shell

if TYPE_CHECKING:
    from scrcl_infer.source import Source


def evaluate_cli(
    data: Annotated[
        Path, typer.Argument(metavar="FOUND.h5ad", help="With scrcl_* columns, from training or assigning.")
    ],
    labels: Annotated[str, typer.Option(metavar="OBS_KEY", help="The truth to compare with.")],
    prefix: Annotated[str, typer.Option("--obs-prefix", metavar="TEXT", help="Of the columns.")] = "scrcl_",
    reliability: Annotated[
        Path | None,
        typer.Option(metavar="PICTURE", help="Draw confidence against accuracy here (.png, .pdf, .svg)."),
    ] = None,
) -> None:
    """Compare what was found or assigned with labels; prints JSON.

    Populations: ACC (Hungarian), NMI, ARI, macro-F1. Types, where there are confidences: accuracy, macro- and weighted
    F1 over the types that both sides have, calibration error, and how well the confidence tells cells of other types
    ('unknown' detection, AUROC).
    """
    from scrcl_train.reliability_picture import check_picture

    if reliability is not None:
        check_picture(reliability)
    scores = evaluate(data, labels, prefix=prefix)
    if reliability is not None:
        _draw(scores, reliability)
    typer.echo(json.dumps(scores, indent=2))


def evaluate(data: Path, label_key: str, *, prefix: str = "scrcl_") -> dict[str, Any]:
    """Score the populations and types of an annotated `.h5ad`.

    Parameters
    ----------
    data
        Written by `scrcl-train --write-h5ad` or `scrcl-assign -o`.
    label_key
        Column of `obs` that holds the truth; cells without label are left out.
    prefix
        Put before 'population', 'cell_type' and 'confidence'.

    Raises
    ------
    InputError
        The file lacks the labels or the answers.
    """
    from scrcl_infer.h5ad import H5ad
    from scrcl_train.data import read_labels
    from scrcl_train.evaluate import score_clustering

    truth = read_labels(data, label_key)
    with H5ad(data) as source:
        found = source.obs_column(f"{prefix}population")
        scores: dict[str, Any] = {"populations": dataclasses.asdict(score_clustering(truth, found))}
        if f"{prefix}confidence" in source.obs_keys():
            scores["types"] = _score_types(source, truth, prefix)
    return scores


def _score_types(source: Source, truth: Any, prefix: str) -> dict[str, Any]:  # noqa: ANN401 - an array of str
    from scrcl_infer.contract import UNKNOWN
    from scrcl_train.evaluate import score_assignment

    answers, confidence = source.obs_column(f"{prefix}cell_type"), source.obs_column(f"{prefix}confidence")
    known = sorted({str(name) for name in answers} - {UNKNOWN})
    if not set(known) & set(truth):
        return {"reason": f"no label is among the types answered: {', '.join(known[:5])}, ..."}
    return dataclasses.asdict(
        score_assignment(truth, answers, confidence, known_types=known, rejection_score=confidence)
    )


def _draw(scores: dict[str, Any], picture: Path) -> None:
    from scrcl_infer.errors import InputError
    from scrcl_train.reliability import ReliabilityRow
    from scrcl_train.reliability_picture import draw_reliability

    types = scores.get("types", {})
    error = types.get("calibration_error")
    if error is None:
        msg = f"There are no confidences to draw: {types.get('reason', 'the file has none, or all cells are unknown')}."
        raise InputError(msg)
    draw_reliability([ReliabilityRow(**row) for row in types["reliability"]], error, picture)


def biology_cli(
    data: Annotated[Path, typer.Argument(metavar="FOUND.h5ad", help="From `scrcl-train ... --write-h5ad`.")],
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Of the same run.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder for figures and tables.")],
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that holds files.")] = False,
) -> None:
    """Write marker genes, dot plot, heatmap, UMAP, PAGA, and the genes that drive each population, as PNG and TSV."""
    shell.configure_logging()
    from scrcl_train.biology import write_biology

    write_biology(data, bundle, output, force=force)
    typer.echo(output)
