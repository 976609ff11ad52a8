"""Transfer benchmark: learn types on one batch, map another; scores on the types that both have."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.methods import Method
from benchmarks.pairs import PAIRS, Transfer, choose_pairs
from benchmarks.peers_transfer import METHODS, PACKAGES
from benchmarks.runner import Plan, Results, as_scores
from benchmarks.table import Table
from scrcl_train.evaluate import score_assignment

__all__ = ["METHODS", "SETS", "choose_sets", "find_method", "make_table", "score"]

SETS = PAIRS
METRICS = ("accuracy", "macro_f1", "weighted_f1", "calibration_error")
choose_sets = choose_pairs

PROTOCOL = """\
Every method learns from the reference (counts, genes and, but for *without labels*, labels) and answers for the query
cells; no rejection. Scores are over the query cells whose type the reference has, macro-F1 over those types.

Peers are told the query's genes and trained on those shared: counts per ten thousand over all genes of the file, log1p,
2,000 highly variable genes of the reference, standardised by the reference and clipped at 10; logistic regression
(C = 1), or the 15 nearest by cosine on 30 PCs. Ours is trained on the reference alone, exported, and assigns the query
through `scrcl_infer`; *without labels*: populations are named afterwards by the majority of their reference cells."""


def score(answers: NDArray[Any], cells: Transfer, labels: ArrayLike) -> dict[str, float]:
    """Return the scores of answers (2, m): types and confidences."""
    found = score_assignment(labels, answers[0], answers[1].astype(float), known_types=sorted(set(cells.labels)))
    error = np.nan if found.calibration_error is None else found.calibration_error
    return as_scores(
        {
            "accuracy": found.accuracy,
            "macro_f1": found.macro_f1,
            "weighted_f1": found.weighted_f1,
            "calibration_error": error,
        }
    )


def find_method(name: str, methods: tuple[Method, ...]) -> Method | None:
    """Return a method by name."""
    return next((method for method in methods if method.name == name), None)


def make_table(plan: Plan, results: Results, n_types: dict[str, int]) -> Table:
    """Return the table of finished calls."""
    groups = (("mean of all", tuple(item.name for item in plan.sets)),)
    notes = {name: f" ({k} shared types)" for name, k in n_types.items()}
    kinds = {"given": "query cells of shared types"}
    return Table("transfer", PROTOCOL, METRICS, groups, plan, results, PACKAGES, kinds=kinds, row_notes=notes)
