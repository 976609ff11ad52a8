"""Transfer benchmark: learn types on one batch, map another; scores on the types that both have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.methods import Method
from benchmarks.pairs import PAIRS, PLACES_UNSEEN, Transfer, choose_pairs
from benchmarks.peers_transfer import METHODS, PACKAGES
from benchmarks.runner import Plan, Results, as_scores
from benchmarks.table import Table, summarise
from scrcl_train.evaluate import score_assignment

__all__ = ["METHODS", "SETS", "choose_sets", "compare", "find_method", "make_table", "score"]

SETS = PAIRS
METRICS = ("accuracy", "macro_f1", "weighted_f1", "calibration_error")
choose_sets = choose_pairs

PROTOCOL = """\
Every method learns from the reference (counts, genes and, but for *without labels*, labels) and answers for the query
cells; no rejection. Scores are over the query cells whose type the reference has, macro-F1 over those types.

Ours is trained on the reference alone with the default settings, exported, and assigns the query through
`scrcl_infer`. *Without labels*: 60 populations are asked for (what is not apart cannot be named apart), and named
afterwards by the majority of their reference cells. DLPFC: spots of two sections of tissue. Ours is trained with
`--spatial` and told where the spots lie, in the reference and in the query, which no peer can use; the last pair are
the same spots without their places, and takes this one's turn in the last mean.

Logistic regression (C = 1), kNN (the 15 nearest by cosine on 30 PCs) and `ingest` are told the query's genes and
trained on those shared: counts per ten thousand over all genes of the file, log1p, 2,000 highly variable genes of the
reference; the first two standardised by the reference and clipped at 10. `ingest` runs scanpy's PCA (50) and neighbours
(15) with their defaults and gives no confidence. CellTypist: `celltypist.train(adata, labels)` with its defaults on
log1p of counts per ten thousand of all genes of the reference (C = 1, lbfgs, no feature selection),
`celltypist.annotate` with best match and without majority voting; confidence is the highest of its
one-against-the-rest probabilities.
Xin and Wang hold log values: CellTypist refuses them as they are, so they are taken back by expm1, brought to ten
thousand and logged again; the simple peers take them as they are.

Kang: the file's one batch column, `sample_id`, holds five donors and does not tell control from stimulated cells, so
there is no pair from one to the other. panc8: four technologies train, the fifth is mapped."""


def score(answers: NDArray[Any], cells: Transfer, labels: ArrayLike) -> dict[str, float]:
    """Return the scores of answers (2, m): types and confidences."""
    confidence = answers[1].astype(float)
    told = bool(np.isfinite(confidence).all())
    known = sorted(set(cells.labels))
    found = score_assignment(labels, answers[0], np.nan_to_num(confidence), known_types=known)
    error = found.calibration_error if told and found.calibration_error is not None else np.nan
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
    names = tuple(item.name for item in plan.sets)
    groups: tuple[tuple[str, tuple[str, ...]], ...] = (("mean of all", tuple(n for n in names if n != PLACES_UNSEEN)),)
    if PLACES_UNSEEN in names and len(names) > 1:
        seen = PLACES_UNSEEN.partition(",")[0]
        groups = (*groups, ("mean of all, places unseen", tuple(n for n in names if n != seen)))
    notes = {name: f" ({k} shared types)" for name, k in n_types.items()}
    kinds = {"given": "query cells of shared types"}
    table = Table("transfer", PROTOCOL, METRICS, groups, plan, results, PACKAGES, kinds=kinds, row_notes=notes)
    return replace(table, closing=compare(table))


def compare(table: Table) -> str:
    """Return Markdown: mean over the pairs of each of ours less that of each peer which ran on all of them."""
    columns = [c for m in table.plan.methods for c in m.columns]
    names = table.groups[0][1]
    means = {
        (c.key, metric): found[0]
        for c in columns
        for metric in ("accuracy", "macro_f1")
        if (found := summarise(table, c.key, names, metric)) is not None
    }
    lines = [
        f"- {ours.title} less {peer.title}: accuracy {means[ours.key, 'accuracy'] - means[peer.key, 'accuracy']:+.3f}, "
        f"macro-F1 {means[ours.key, 'macro_f1'] - means[peer.key, 'macro_f1']:+.3f}"
        for ours in columns
        for peer in columns
        if ours.is_ours and not peer.is_ours and (ours.key, "macro_f1") in means and (peer.key, "macro_f1") in means
    ]
    return "## Differences of the means\n\n" + "\n".join(lines) if lines else ""
