"""Methods of the unknown benchmark: a confidence for every query cell, and whether it is unknown where there is a rule.

One more peer is one more `Method` whose `run` returns an array (2, m): confidences, and NaN for want of a rule.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from benchmarks.celltypist_env import CELLTYPIST, NOTE, answer_celltypist
from benchmarks.code import TRAIN_FOLDER, hash_code
from benchmarks.exchange import Query
from benchmarks.learners import Reference, choose_genes, learn_logistic
from benchmarks.left_out import Question
from benchmarks.methods import Column, Method, Outcome
from benchmarks.peers_transfer import PACKAGES
from scrcl_train.distil import Targets

N_PCS = 50
N_NEIGHBORS = 15
CODE = (
    "augment",
    "calibration",
    "classes",
    "distil",
    "features",
    "hiding",
    "rarity",
    "rejection",
    "student",
    "student_input",
)
INFER_CODE = ("depth", "rarity", "strangeness", "tempering")
"""Modules of scrcl_train and of scrcl_infer whose code decides our answers."""


def prepare_targets(cells: Question) -> tuple[NDArray[np.int64], Targets]:
    """Return the 2,000 variable genes, and what the student is taught in place of a teacher."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors

    from scrcl_train.features import column_moments, normalise, standardise, variable_genes
    from scrcl_train.presets import get_preset

    logged = normalise(cells.counts, _totals(cells.counts))
    genes = variable_genes(cells.counts, logged, get_preset("default"))
    chosen = sp.csr_matrix(logged[:, genes])
    scaled = standardise(chosen, *column_moments(chosen), max_value=10.0)
    components = PCA(N_PCS, random_state=0).fit_transform(scaled)
    components /= np.linalg.norm(components, axis=1, keepdims=True)
    nearest = NearestNeighbors(n_neighbors=N_NEIGHBORS).fit(components).kneighbors(return_distance=False)
    embedding = (components + components[nearest].sum(axis=1)) / (N_NEIGHBORS + 1)
    names, types = np.unique(cells.labels.astype(str), return_inverse=True)
    populations = KMeans(len(names), n_init=3, random_state=0).fit_predict(embedding).astype(np.int64)
    place = embedding[:, :2].astype(np.float32)
    return genes, Targets(
        embedding.astype(np.float32), populations, len(names), place, types.astype(np.int64), len(names)
    )


def answer_ours(prepared: tuple[NDArray[np.int64], Targets], cells: Question, seed: int) -> Outcome:
    """Calibrate and teach a student; answer by strangeness, and by the probability of the best type."""
    from scrcl_infer.assign import apply_temperature
    from scrcl_infer.strangeness import compute_strangeness, refer
    from scrcl_train.calibration import calibrate
    from scrcl_train.classes import fit_classes, spaces_of
    from scrcl_train.distil import distil
    from scrcl_train.student import predict

    genes, targets = prepared
    counts, library = sp.csr_matrix(cells.counts[:, genes]), _totals(cells.counts)
    calibrated = calibrate(counts, library, targets, seed=seed)
    student = distil(counts, library, targets, seed=seed)
    rejection = calibrated.complete(fit_classes(student, predict(student, counts, library), targets.classes))
    query = sp.csr_matrix(cells.query_counts[:, genes])
    answer = predict(student, query, _totals(cells.query_counts))
    types = answer.log_type_posterior
    if types is None or rejection is None:
        msg = "the student has no type head, or nothing could be held out"
        raise RuntimeError(msg)
    n_detected = np.asarray((query > 0).sum(axis=1), dtype=np.int64).reshape(-1)
    strange = compute_strangeness(spaces_of(answer), n_detected, refer(rejection))
    strange[n_detected == 0] = strange.max() + 1
    confidence = apply_temperature(types, calibrated.calibration.temperature).max(axis=1)
    unknown = (strange > 0) | (n_detected == 0) | (confidence < calibrated.calibration.threshold)
    return Outcome({"ours": np.stack([-strange, unknown]), "ours-probability": _without_rule(confidence)})


def answer_logistic(reference: Reference, cells: Question, seed: int) -> Outcome:
    """Answer by the probability of the best type of logistic regression."""
    ask = learn_logistic(reference, cells.labels, seed)
    found = ask(reference.read(Query(cells.query_counts, cells.query_genes)))
    return Outcome({"logistic": _without_rule(found[1])})


def ask_celltypist(cells: Question) -> NDArray[np.object_]:
    """Return types and highest probabilities (2, m) of CellTypist trained on the learned cells."""
    query = Query(cells.query_counts, cells.query_genes)
    return answer_celltypist(cells.counts, cells.genes, cells.labels, [query], is_log=cells.is_log)[0]


def _totals(counts: sp.csr_matrix) -> NDArray[np.float32]:
    return np.asarray(counts.sum(axis=1), dtype=np.float32).reshape(-1)


def _without_rule(confidence: NDArray[Any]) -> NDArray[np.float64]:
    values = confidence.astype(np.float64)
    return np.stack([values, np.full(len(values), np.nan)])


METHODS: tuple[Method, ...] = (
    Method(
        "ours",
        (
            Column("ours", "scRCL, strangeness", "given", is_ours=True),
            Column("ours-probability", "scRCL, probability of the best type", "given", is_ours=True),
        ),
        prepare_targets,
        answer_ours,
        version=f"{hash_code(CODE)}-{hash_code(INFER_CODE, TRAIN_FOLDER.with_name('scrcl_infer'))}",
        settings={"pcs": N_PCS, "neighbors": N_NEIGHBORS},
        packages=PACKAGES,
        needs=("torch",),
    ),
    Method(
        "logistic",
        (Column("logistic", "logistic regression, probability of the best type", "given"),),
        lambda cells: choose_genes(cells, shared=True),
        answer_logistic,
        packages=PACKAGES,
    ),
    Method(
        "celltypist",
        (Column("celltypist", "CellTypist, probability of the best type", "given", NOTE),),
        ask_celltypist,
        lambda answers, cells, seed: Outcome({"celltypist": _without_rule(answers[1])}),
        settings={"requirements": CELLTYPIST.requirements},
        environment=CELLTYPIST,
    ),
)
