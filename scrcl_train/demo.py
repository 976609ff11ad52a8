"""The whole product on simulated cells: train on one batch, export, assign the other, say how well it went."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import scrcl_infer
from scrcl_infer.contract import UNKNOWN
from scrcl_infer.errors import OutputError
from scrcl_infer.result import AssignOptions, Summary
from scrcl_infer.target import Target
from scrcl_train.evaluate import AssignmentScores, score_assignment
from scrcl_train.options import TrainOptions
from scrcl_train.pipeline import train
from scrcl_train.progress import TrainProgress
from scrcl_train.simulator import simulate


@dataclass(frozen=True)
class DemoResult:
    """Where the example's files lie and how the unseen batch was assigned."""

    training_file: Path
    query_file: Path
    bundle: Path
    annotated: Path
    scores: AssignmentScores
    summary: Summary


def run_demo(folder: Path, *, seed: int = 0, device: str = "auto", progress: TrainProgress | None = None) -> DemoResult:
    """Simulate two batches, train on the first with its labels, and assign the second.

    Parameters
    ----------
    folder
        Made here; must not exist.
    seed
        Of the simulation and of all training.
    device
        As for training.
    progress
        As for training.

    Raises
    ------
    OutputError
        The folder exists.
    """
    if folder.exists():
        msg = f"{folder} exists. Name another folder with -o, or remove it."
        raise OutputError(msg)
    folder.mkdir(parents=True)
    adata = simulate(seed=seed)
    first = (adata.obs["batch"] == "batch1").to_numpy()
    training_file, query_file = folder / "batch1.h5ad", folder / "batch2.h5ad"
    adata[first].write_h5ad(training_file)
    query = adata[~first].copy()
    truth = query.obs["cell_type"].astype(str).to_numpy(dtype=object)
    del query.obs["cell_type"]  # what is assigned has no labels
    query.write_h5ad(query_file)
    options = TrainOptions(
        label_keys=("cell_type",), seed=seed, device=device, data_licence="simulated, no licence needed"
    )
    bundle = train(training_file, folder / "model", options, progress=progress).folder
    model = scrcl_infer.load(bundle)
    annotated = folder / "batch2.types.h5ad"
    summary = model.assign_file(query_file, Target(annotated))
    answers = model.assign(query_file, options=AssignOptions(reject=False))
    known = [t.name for t in model.manifest.cell_types]
    scores = score_assignment(truth, answers.cell_type, answers.confidence, known_types=known)
    return DemoResult(training_file, query_file, bundle, annotated, scores, summary)


def format_result(result: DemoResult) -> str:
    """Return the lines that the shell prints."""
    n_unknown = result.summary.cells_per_type.get(UNKNOWN, 0)
    types = ", ".join(f"{name} {n}" for name, n in result.summary.cells_per_type.items())
    return "\n".join(
        [
            f"Assigned {result.summary.n_cells} cells of a batch that was never seen: {types}.",
            f"Agreement with the simulated truth: accuracy {result.scores.accuracy:.3f}, "
            f"macro-F1 {result.scores.macro_f1:.3f} ({n_unknown / max(result.summary.n_cells, 1):.1%} left unknown, "
            "scored here by their best guess).",
            f"Trained on:       {result.training_file}",
            f"Model bundle:     {result.bundle}",
            f"New cells:        {result.query_file}",
            f"Annotated copy:   {result.annotated}",
            f"Training log:     {result.bundle}.run",
        ]
    )
