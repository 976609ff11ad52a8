"""The whole way from counts to a bundle, and the only file that strings the steps.

::

    counts ── features ── teacher ── populations ─┬─ names ◂── labels, if any
                                                  ├─ map
                                                  └─ calibration ── student ── export ── parity check ── bundle

Labels enter at the names, behind everything that is fitted without them.
"""

from __future__ import annotations

import logging
import platform
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scrcl_infer.bundle import write_bundle
from scrcl_infer.contract import GeneTable, Provenance
from scrcl_train.augment import AugmentConfig
from scrcl_train.batches import describe_batches, mix_batches
from scrcl_train.calibration import calibrate, count_students
from scrcl_train.checkpoint import note_asked
from scrcl_train.classes import fit_classes
from scrcl_train.data import TrainingData, add_gene_ids, read_training_data
from scrcl_train.device import choose_device, keep_threads
from scrcl_train.distil import DistilConfig, DistilEpoch, Targets, distil
from scrcl_train.export import ModelParts, build_bundle
from scrcl_train.features import Features, prepare_features
from scrcl_train.gene_structure import compute_count_shares, compute_evidence, compute_gene_graph
from scrcl_train.grouping import group_cells, make_targets, student_input
from scrcl_train.names import Named, Names, name_found, read_names
from scrcl_train.options import TrainOptions
from scrcl_train.place import compute_map
from scrcl_train.populations import Populations, fit_centroids
from scrcl_train.preflight import check_number, check_run
from scrcl_train.progress import Report, TrainProgress
from scrcl_train.student import Prediction, predict
from scrcl_train.trainer import Teacher, fit
from scrcl_train.write import TrainingAnswers, write_training_h5ad

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scrcl_infer.contract import Bundle

logger = logging.getLogger(__name__)
ASKED_OPTIONS = ("batch_key", "section_key", "n_populations", "label_keys", "layer", "input_state", "gene_column")
"""Fields of `TrainOptions` that `run.json` keeps beside the teacher's settings."""
VERSIONS_KEPT = ("scrcl", "torch", "numpy", "scikit-learn", "scanpy", "onnx", "onnxruntime")
WELL_LEARNED = 0.8
"""Of the training cells' populations the student gives nearly all again; below this share it is warned of."""


@dataclass(frozen=True)
class Found:
    """What was found in the training cells without labels (n cells)."""

    features: Features
    teacher: Teacher
    embedding: NDArray[np.float32]
    """(n, D) in which the populations were sought."""
    populations: Populations
    map: NDArray[np.float32]
    """(n, 2) UMAP of the embedding."""


@dataclass(frozen=True)
class TrainResult:
    """What a run found and where it lies."""

    bundle: Bundle
    folder: Path
    run_dir: Path
    found: Found
    naming: tuple[str, ...] = ()
    """How marker genes named the populations, one line each."""


def train(path: Path, folder: Path, options: TrainOptions, *, progress: TrainProgress | None = None) -> TrainResult:
    """Find the populations of a file, teach a per-cell encoder, and write the bundle.

    Parameters
    ----------
    path
        `.h5ad` with raw counts.
    folder
        The bundle to write.
    options
        See `TrainOptions`.
    progress
        Told of each step and epoch; None says nothing.

    Raises
    ------
    InputError, MatrixError
        The file cannot be used as it is.
    OutputError
        The bundle or the `.h5ad` copy exists and `force` is not set; said before any work is done.
    TrainingError
        Training diverged, the run folder holds another run, or more populations were asked for than there are cells.
    ExportError
        The exported encoder does not answer as the trained one.
    """
    progress = progress or TrainProgress()
    run_dir = check_run(path, folder, options)
    with progress.step("Reading counts"):
        data = read_training_data(
            path,
            layer=options.layer,
            state=options.input_state,
            batch_key=options.batch_key,
            spatial=options.config.spatial,
            section_key=options.section_key,
            gene_column=options.gene_column,
        )
        check_number(options.n_populations, data.n_cells)
        if options.gene_ids is not None:
            data = add_gene_ids(data, options.gene_ids)
        names = read_names(path, data, options)
    progress.say(f"{data.n_cells:,} cells x {len(data.gene_names):,} genes. {data.matrix.reason}")
    if data.are_counts and data.matrix.state != "counts":
        progress.say("Its values are whole multiples in each cell: counts were found again.")
    found = _find_populations(data, options, run_dir, progress)
    named = name_found(names, data, found.populations.labels, run_dir, seed=options.seed)
    bundle, types = _teach_student(
        data, found, (names, named), options=options, name=options.name or folder.name, progress=progress
    )
    with progress.step("Writing"):
        write_bundle(bundle, folder, force=options.force)
        if options.write_h5ad is not None:
            answers = TrainingAnswers(data.rows, found.populations.labels, types, found.embedding, found.map)
            matrix = data.matrix.where, options.input_state
            write_training_h5ad(path, options.write_h5ad, answers, bundle.manifest, matrix=matrix, force=options.force)
    return TrainResult(bundle, folder, run_dir, found, named.remarks)


def _find_populations(data: TrainingData, options: TrainOptions, run_dir: Path, progress: TrainProgress) -> Found:
    """Fit the teacher and group the cells; no label is in sight."""
    n_epochs = options.config.teacher.epochs
    with progress.step("Choosing genes, building graphs"), keep_threads():
        features = prepare_features(
            data.counts,
            options.config,
            library_size=data.library_size,
            batch=data.batch,
            spatial=None if data.spots is None else data.spots.places,
            section=None if data.spots is None else data.spots.section,
            seed=options.seed,
        )
        if data.batch is not None:
            progress.say(describe_batches(features, data.batch))
            features = mix_batches(features, data.batch, options.config.graph, seed=options.seed)
    with progress.epochs("Teacher") as report:
        teacher = fit(
            features,
            options.config,
            seed=options.seed,
            device=options.device,
            run_dir=run_dir,
            resume=options.resume,
            on_epoch=lambda log: report(
                log.epoch, {"loss": log.loss, "EDA": log.eda, "NCA": log.nca, "CVC": log.cvc}, n_epochs
            ),
        )
    note_asked(run_dir, {key: getattr(options, key) for key in ASKED_OPTIONS})
    with progress.step("Finding populations"):
        populations, embedding = group_cells(
            data, features, teacher, options.config, n_populations=options.n_populations, seed=options.seed
        )
    progress.say(f"{populations.n_populations} populations{' (estimated)' if populations.chosen else ''}")
    with progress.step("Drawing the map"), keep_threads():
        place = compute_map(embedding, seed=options.seed)
    return Found(features, teacher, embedding, populations, place)


def _teach_student(
    data: TrainingData,
    found: Found,
    naming: tuple[Names, Named],
    *,
    options: TrainOptions,
    name: str,
    progress: TrainProgress,
) -> tuple[Bundle, NDArray[np.int64] | None]:
    """Teach and calibrate the student, put the bundle together, and say which types (n,) its type head answers."""
    counts, library_size, spatial = student_input(data, found.features, options.config)
    populations, device = found.populations, choose_device(options.device)
    names, named = naming
    targets = make_targets(populations, found.embedding, found.map, names.labels)
    # Values that were logarithms once, or means of neighbours, are no counts: their depth cannot be drawn anew.
    recipe = DistilConfig(augment=AugmentConfig(thin=data.are_counts and spatial is None))
    n_students = count_students(targets.classes, seed=options.seed)
    seed = options.seed
    with progress.epochs("Calibration", n_rounds=n_students) as report:
        calibrated = calibrate(
            counts, library_size, targets, config=recipe, seed=seed, device=device, on_epoch=partial(_tell, report)
        )
    with progress.epochs("Student") as report:
        student = distil(
            counts, library_size, targets, config=recipe, seed=seed, device=device, on_epoch=partial(_tell, report)
        )
    with progress.step("Exporting, comparing torch and onnxruntime"):
        answer = predict(student, counts, library_size)
        _check_learned(answer, targets, progress)
        parts = ModelParts(
            name=name,
            genes=_gene_table(data, found.features, compute_evidence(student, counts, library_size)),
            populations=named.populations,
            cell_types=named.cell_types,
            levels=names.levels,
            calibration=calibrated.calibration,
            provenance=_provenance(data, options),
            centroids=fit_centroids(answer.embedding, populations.labels, populations.n_populations),
            gene_graph=compute_gene_graph(
                data.counts[:, found.features.hvgs],
                data.library_size,
                found.teacher.gene_embedding,
                np.concatenate([found.teacher.z_1, found.teacher.z_2], axis=1),
                populations.labels,
            ),
            rejection=calibrated.complete(fit_classes(student, answer, targets.classes)),
            held_out=calibrated.held_out,
            spatial=spatial,
            notes=options.card_notes.read_text(encoding="utf-8") if options.card_notes else "",
        )
        types = None if answer.log_type_posterior is None else answer.log_type_posterior.argmax(axis=1)
        return build_bundle(student, parts, counts, library_size, seed=options.seed), types


def _tell(report: Report, log: DistilEpoch) -> None:
    report(log.epoch, log.losses, log.n_epochs)


def _check_learned(answer: Prediction, targets: Targets, progress: TrainProgress) -> None:
    """Say how well the student stands for what it was taught, and warn where it does not for what it answers."""
    learned = float(np.mean(answer.log_posterior.argmax(axis=1) == targets.populations))
    told = f"The encoder gives {learned:.1%} of the training cells the population that was found for them"
    if answer.log_type_posterior is None or targets.types is None:
        todo = "Ask for fewer (-k), and check "
    else:
        known = targets.types >= 0
        learned = float(np.mean((answer.log_type_posterior.argmax(axis=1) == targets.types)[known]))
        told, todo = f"{told}, and {learned:.1%} of those with a label their type", "Check "
    if learned < WELL_LEARNED:
        logger.warning("%s: its answers do not stand for these. %swhat the values are (--input-state).", told, todo)
    else:
        progress.say(f"{told}.")


def _gene_table(data: TrainingData, features: Features, evidence: tuple[float, ...]) -> GeneTable:
    return GeneTable(
        names=tuple(data.gene_names[j] for j in features.hvgs),
        symbols=tuple(data.symbols[j] for j in features.hvgs),
        ensembl_ids=tuple(data.ensembl_ids[j] for j in features.hvgs),
        evidence=evidence,
        count_shares=compute_count_shares(data.counts[:, features.hvgs], data.library_size),
        species=data.species,
    )


def _provenance(data: TrainingData, options: TrainOptions) -> Provenance:
    versions = {"python": platform.python_version()}
    for package in VERSIONS_KEPT:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return Provenance(
        data_name=data.path.name,
        data_sha256=data.sha256,
        n_cells=data.n_cells,
        n_genes=len(data.gene_names),
        preset=options.config.preset,
        seed=options.seed,
        label_keys=options.label_keys,
        batch_key=options.batch_key,
        versions=versions,
        data_licence=options.data_licence,
        marker_table="" if options.markers is None else options.markers.name,
    )
