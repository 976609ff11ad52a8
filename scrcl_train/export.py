"""From a trained student to a model bundle: the ONNX file, the golden rows and the manifest."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scrcl_infer.assign import type_of_population
from scrcl_infer.contract import (
    SCHEMA_VERSION,
    Bundle,
    Calibration,
    CellType,
    EncoderSpec,
    GeneTable,
    LabelLevel,
    Manifest,
    Parity,
    Population,
    Provenance,
    SpatialSpec,
)
from scrcl_infer.parts import Centroids, GeneGraph, Golden, HeldOutAnswers, Rejection
from scrcl_infer.tempering import calibrate_types
from scrcl_train.card import write_card
from scrcl_train.onnx_graph import OPSET, export_onnx
from scrcl_train.parity import NearTieError, check_parity, run_onnx
from scrcl_train.student import Student

logger = logging.getLogger(__name__)

PARITY_CELLS = 2000
GOLDEN_CELLS = 32
NUDGE = 1e-3
"""Standard deviation of what is added to the heads' biases to part a near tie, in natural log: a tenth of a percent."""
N_NUDGES = 3
GOLDEN_GAP = 1e-2
"""A golden row's best answer leads by this in log posterior where such rows exist: another CPU must not tip it over."""


@dataclass(frozen=True)
class ModelParts:
    """What a bundle holds besides the encoder and what follows from it."""

    name: str
    genes: GeneTable
    populations: tuple[Population, ...]
    cell_types: tuple[CellType, ...]
    calibration: Calibration
    """Of the types of the type head, else of the populations."""
    provenance: Provenance
    centroids: Centroids
    gene_graph: GeneGraph
    rejection: Rejection | None = None
    """Without it no cell is unknown."""
    held_out: HeldOutAnswers | None = None
    """Without it, types that are put together from populations keep the populations' calibration."""
    spatial: SpatialSpec | None = None
    levels: tuple[LabelLevel, ...] = ()
    notes: str = ""  # Markdown for the card: figures on other data


def build_bundle(
    student: Student,
    parts: ModelParts,
    counts: sp.csr_matrix,
    library_size: NDArray[np.float32],
    *,
    seed: int = 0,
) -> Bundle:
    """Export the student, check that onnxruntime answers as torch does, and put the bundle together.

    Parameters
    ----------
    student
        Trained on the genes of `parts.genes`, in that order.
    parts
        Everything else; its shapes must fit the student.
    counts
        (n, G) raw counts of the training cells, of which `PARITY_CELLS` are compared and `GOLDEN_CELLS` kept.
    library_size
        (n,) or (n, 1) total counts over all genes.
    seed
        Chooses the cells.

    Raises
    ------
    ExportError
        The two runtimes differ (see `scrcl_train.parity.check_parity`).
    ValueError
        The number of genes, populations or types differs between student and parts.
    """
    _check_fit(student, parts)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        name=parts.name,
        created_by=f"scrcl {_own_version()}",
        genes=parts.genes,
        encoder=EncoderSpec(
            OPSET, student.config.dim, student.n_populations, student.n_types, student.config.target_sum
        ),
        populations=parts.populations,
        cell_types=parts.cell_types,
        calibration=parts.calibration,
        parity=Parity(0.0, 0.0, 0),
        provenance=parts.provenance,
        spatial=parts.spatial,
        levels=parts.levels,
    )
    together = np.arange(student.n_populations), type_of_population(manifest)
    manifest = replace(manifest, calibration=calibrate_types(parts.calibration, parts.held_out, *together))
    library = np.asarray(library_size, dtype=np.float32).reshape(-1, 1)
    chosen = _choose(counts.shape[0], PARITY_CELLS, seed)
    student, model, parity = _export_agreeing(student, manifest.contract_id, counts[chosen], library[chosen])
    manifest = replace(manifest, parity=parity)
    golden = make_golden(model, counts[chosen], library[chosen])
    card = write_card(manifest, notes=parts.notes)
    return Bundle(manifest, model, parts.centroids, parts.gene_graph, golden, card, parts.rejection, parts.held_out)


def _export_agreeing(
    student: Student, contract_id: str, counts: sp.csr_matrix, library_size: NDArray[np.float32]
) -> tuple[Student, bytes, Parity]:
    """Export so that both runtimes give every cell the same labels.

    Among thousands of cells one is now and then so near a tie that the order of additions decides it (one model in some
    hundreds, as measured). No cell is excused: the heads' biases are moved by a hair and the whole check is done again.
    """
    for attempt in range(N_NUDGES):
        model = export_onnx(student, contract_id)
        try:
            return student, model, check_parity(student, model, counts, library_size)
        except NearTieError as error:
            logger.info("%s Biases are moved by about %g.", error, NUDGE)
            student = _nudge(student, seed=attempt)
    model = export_onnx(student, contract_id)
    return student, model, check_parity(student, model, counts, library_size)


def _nudge(student: Student, *, seed: int) -> Student:
    """Return a copy whose population and type biases are moved at random."""
    import torch

    moved = copy.deepcopy(student)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for head in (moved.population_head, moved.type_head):
            if head is not None:
                head.bias.add_(NUDGE * torch.randn(head.bias.shape, generator=generator))
    return moved


def make_golden(model: bytes, counts: sp.csr_matrix, library_size: NDArray[np.float32]) -> Golden:
    """Choose rows that cover the populations and are not near a tie, with onnxruntime's answers for them.

    Parameters
    ----------
    model
        Serialised encoder.
    counts, library_size
        (m, G) and (m, 1) of real cells to choose from.
    """
    answer = run_onnx(model, counts, library_size)
    heads = [answer.log_posterior] + ([] if answer.log_type_posterior is None else [answer.log_type_posterior])
    clear = np.min([_lead(head) for head in heads], axis=0) > GOLDEN_GAP
    best = answer.log_posterior.argmax(axis=1)
    # Clear rows first; among them the first of each population, then the second of each, and so on.
    turn = np.zeros(best.size, dtype=np.int64)
    for k in np.unique(best):
        members = np.flatnonzero(best == k)
        members = members[np.argsort(~clear[members], kind="stable")]
        turn[members] = np.arange(members.size)
    rows = np.sort(np.lexsort((best, turn, ~clear))[:GOLDEN_CELLS])
    types = answer.log_type_posterior
    return Golden(
        counts=counts[rows].toarray().astype(np.float32),
        library_size=np.asarray(library_size, dtype=np.float32).reshape(-1, 1)[rows],
        embedding=answer.embedding[rows],
        log_posterior=answer.log_posterior[rows],
        map=answer.map[rows],
        log_type_posterior=np.zeros((rows.size, 0), dtype=np.float32) if types is None else types[rows],
    )


def _lead(log_posterior: NDArray[np.float32]) -> NDArray[np.float32]:
    """Best minus second best of each row; infinite where there is one column only."""
    if log_posterior.shape[1] < 2:
        return np.full(len(log_posterior), np.inf, dtype=np.float32)
    top = np.partition(log_posterior, -2, axis=1)[:, -2:]
    lead: NDArray[np.float32] = top[:, 1] - top[:, 0]
    return lead


def _choose(n_cells: int, n_chosen: int, seed: int) -> NDArray[np.int64]:
    rng = np.random.default_rng(seed)
    return np.sort(rng.permutation(n_cells)[:n_chosen])


def _check_fit(student: Student, parts: ModelParts) -> None:
    # Without a head the types follow from populations, however many there are.
    n_types = len(parts.cell_types) if student.n_types else 0
    pairs = {
        "genes": (student.n_genes, len(parts.genes.names)),
        "populations": (student.n_populations, len(parts.populations)),
        "types": (student.n_types, n_types),
        "centroids": (student.n_populations, len(parts.centroids.centroids)),
    }
    wrong = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    if wrong:
        msg = f"Student and parts do not fit, (student, parts): {wrong}. Build both from the same training run."
        raise ValueError(msg)


def _own_version() -> str:
    try:
        return version("scrcl")
    except PackageNotFoundError:
        return "0+unknown"
