"""Distillation benchmark: what the student's targets and its changed cells are worth, all from one teacher."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.code import hash_deciding_code
from benchmarks.conditions import Condition
from benchmarks.exchange import Query
from benchmarks.methods import Column, Kind, Method, Outcome
from benchmarks.ours_transfer import Search, search
from benchmarks.pairs import PAIRS, Transfer, choose_pairs
from benchmarks.peers_transfer import OURS_PACKAGES, query_of
from benchmarks.runner import Plan, Results
from benchmarks.table import Table
from benchmarks.transfer import score as score_transfer

if TYPE_CHECKING:
    from scrcl_train.distil import DistilConfig, Targets
    from scrcl_train.student import Student

__all__ = ["METHODS", "SETS", "choose_sets", "find_method", "make_table", "score"]

SETS = tuple(pair for pair in PAIRS if not (pair.is_log or pair.sections))
METRICS = ("accuracy", "macro_f1", "weighted_f1")
HARD = Condition(depth=0.1)
choose_sets = choose_pairs

VARIANTS = (
    ("full", "full", True, True),
    ("types", "types only", False, True),
    ("plain-cells", "without augmentation", True, False),
    ("plain-types", "types only, without augmentation", False, False),
)
"""Key, title, whether the teacher's embedding and the populations are learned, whether cells are changed."""
QUERIES: tuple[tuple[str, Kind], ...] = (("", "given"), ("@hard", "thinned"))
"""Ending of a column's key, and what the query is."""

PROTOCOL = """\
One teacher and one search for populations for each pair and seed; then four students with labels. *Full* is what is
shipped. *Types only*: neither the teacher's embedding nor the populations are learned, so that the trunk is shaped by
the labels alone. *Without augmentation*: cells are seen as measured, not thinned and with genes missing. Answers are
the best type of the torch student itself, before calibration, which changes no best type. Twice: for the query as
measured, and with each count kept by a coin of chance 0.1."""


def make_variants(start: Search, labels: NDArray[np.object_]) -> dict[str, tuple[Targets, DistilConfig]]:
    """Return targets and recipe of each variant.

    A single population and an embedding of zeros have losses without gradient: the heads are there, and teach nothing.
    """
    from scrcl_train.augment import AugmentConfig
    from scrcl_train.distil import DistilConfig
    from scrcl_train.grouping import make_targets

    found = start.found
    full = make_targets(found.populations, found.embedding, found.map, labels)
    n = len(full.populations)
    types = replace(full, embedding=np.zeros((n, 1), np.float32), populations=np.zeros(n, np.int64), n_populations=1)
    unchanged = DistilConfig(augment=AugmentConfig(thin=False, max_gene_dropout=0.0, shrink_library=0.0))
    return {
        key: (full if teacher else types, DistilConfig() if augmented else unchanged)
        for key, _, teacher, augmented in VARIANTS
    }


def run_variants(prepared: None, cells: Transfer, seed: int) -> Outcome:
    """Search once, teach each variant, and answer for the query as measured and thinned."""
    from scrcl_train.data import read_labels
    from scrcl_train.distil import distil

    answers = {}
    with tempfile.TemporaryDirectory() as temporary:
        start = search(cells, seed, Path(temporary))
        labels = read_labels(Path(temporary) / "reference.h5ad", "label")[start.data.rows]
    genes = np.array([start.data.gene_names[j] for j in start.found.features.hvgs], dtype=object)
    counts = start.data.counts[:, start.found.features.hvgs]
    for key, (targets, recipe) in make_variants(start, labels).items():
        student = distil(counts, start.data.library_size, targets, config=recipe, seed=seed)
        answers[key] = answer_student(student, genes, labels, query_of(cells))
        answers[f"{key}@hard"] = answer_student(student, genes, labels, HARD.apply(query_of(cells), seed))
    return Outcome(answers)


def answer_student(
    student: Student, genes: NDArray[np.object_], labels: NDArray[np.object_], query: Query
) -> NDArray[np.object_]:
    """Return types and uncalibrated probabilities (2, m); a gene that the query lacks is zero."""
    import scipy.sparse as sp

    from scrcl_train.naming import compute_types
    from scrcl_train.student import predict

    _, here, there = np.intersect1d(genes.astype(str), query.genes.astype(str), return_indices=True)
    place = sp.csr_matrix((np.ones(len(here), np.float32), (there, here)), shape=(len(query.genes), len(genes)))
    totals = np.asarray(query.counts.sum(axis=1), dtype=np.float32)
    found = predict(student, sp.csr_matrix(query.counts @ place), totals).log_type_posterior
    if found is None:
        msg = "the student has no type head"
        raise ValueError(msg)
    types = np.array(compute_types(labels), dtype=object)[found.argmax(axis=1)]
    return np.stack([types, np.exp(found.max(axis=1)).astype(object)])


def score(answers: NDArray[Any], cells: Transfer, labels: ArrayLike) -> dict[str, float]:
    """Return the scores of answers (2, m), without the calibration error: no student is calibrated."""
    found = score_transfer(answers, cells, labels)
    return {name: found[name] for name in METRICS}


METHODS: tuple[Method, ...] = (
    Method(
        "distillation",
        tuple(
            Column(f"{key}{ending}", title, kind, is_ours=True)
            for ending, kind in QUERIES
            for key, title, _, _ in VARIANTS
        ),
        lambda cells: None,
        run_variants,
        version=hash_deciding_code(),
        settings={"variants": VARIANTS, "hard": HARD.name},
        packages=OURS_PACKAGES,
        needs=("torch",),
    ),
)


def find_method(name: str, methods: tuple[Method, ...]) -> Method | None:
    """Return a method by name."""
    return next((method for method in methods if method.name == name), None)


def make_table(plan: Plan, results: Results, n_types: dict[str, int]) -> Table:
    """Return the table of finished calls."""
    groups = (("mean of all", tuple(item.name for item in plan.sets)),)
    kinds = {"given": "query as measured", "thinned": f"query with {HARD.name}"}
    notes = {name: f" ({k} shared types)" for name, k in n_types.items()}
    return Table("distillation", PROTOCOL, METRICS, groups, plan, results, OURS_PACKAGES, kinds=kinds, row_notes=notes)
