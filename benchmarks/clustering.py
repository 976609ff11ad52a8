"""Clustering benchmark: scRCL and its peers on the labelled scRNA-seq sets, without labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.datasets import DEVELOPMENT, FURTHER, NINE, Cells
from benchmarks.methods import Method
from benchmarks.ours import OURS, find_method
from benchmarks.peers_clustering import PEER_PACKAGES, PEERS
from benchmarks.peers_scvi import SCVI_METHOD
from benchmarks.runner import Plan, Results, as_scores
from benchmarks.table import Table
from scrcl_train.evaluate import score_clustering

__all__ = ["METHODS", "SETS", "find_method", "make_table", "score"]

SETS = (*DEVELOPMENT, *FURTHER)
METHODS: tuple[Method, ...] = (*OURS, *PEERS, SCVI_METHOD)
METRICS = ("ari", "nmi", "accuracy", "macro_f1", "n_clusters")
PACKAGES = (*PEER_PACKAGES, "torch")

PROTOCOL = """\
Every method sees the raw counts and nothing else: no labels, no batches; one setting for all sets. Under *K given* it
is also told the number of label values K, under *K estimated* it is not. Scores compare clusters with the published
labels; ACC and macro-F1 after one-to-one (Hungarian) matching of clusters to labels.

Peers: counts per ten thousand, log1p, 2,000 highly variable genes (`seurat`), 50 PCs of plain or of scaled data
(`scale(max_value=10)`); k-means is the best of 10 starts; Leiden on scanpy's exact 15-neighbour graph, igraph, 2
iterations, at resolution 1 or at the resolution (found by bisection) that gives K clusters; *averaged*: the scaled PCs
averaged once over the symmetric 15-neighbour cosine graph of the first 30, self included; *over-clustered and merged*:
k-means (best of two starts) with 6 K on scaled PCs, centroids merged by average linkage on cosine distance.
The seed sets every random number of a method but the PCA, which is deterministic.

The default preset was developed on the first eleven sets; *the nine* are the first nine of them in the order of
`benchmarks.datasets`. The last five are small, of 219 to 2,000 genes; two constants were chosen on all sixteen (the
smallest population, .07 of n / K, and the five cells that count for K). Three of the five hold logarithms, which are
taken back by expm1 first, for all."""


def score(clusters: NDArray[Any], cells: Cells, labels: ArrayLike) -> dict[str, float]:
    """Return the scores of one clustering of `cells`."""
    del cells  # clusterings need the labels only; spatial scores also need the places
    found = score_clustering(labels, clusters)
    return as_scores(
        {
            "ari": found.ari,
            "nmi": found.nmi,
            "accuracy": found.accuracy,
            "macro_f1": found.macro_f1,
            "n_clusters": found.n_clusters,
            "k_error": abs(found.n_clusters - found.n_types) / found.n_types,
        }
    )


def make_table(plan: Plan, results: Results, n_types: dict[str, int]) -> Table:
    """Return the table of finished calls."""
    eleven, five = (tuple(item.name for item in group) for group in (DEVELOPMENT, FURTHER))
    groups = (
        ("mean of the nine", NINE),
        ("mean of the eleven", eleven),
        ("mean of the five others", five),
        ("mean of all", tuple(item.name for item in plan.sets)),
    )
    notes = {name: f" (K = {k})" for name, k in n_types.items()}
    text = PROTOCOL + _estimate_text(plan, results)
    return Table("clustering", text, METRICS, groups, plan, results, PACKAGES, row_notes=notes)


def _estimate_text(plan: Plan, results: Results) -> str:
    """Say for how many sets the estimated K is within 30 % of the number of labels."""
    lines = []
    for method in plan.methods:
        for column in (c for c in method.columns if c.k == "estimated"):
            errors = []
            for item in plan.sets:
                calls = [results.calls.get((method.name, item.name, seed)) for seed in plan.seeds]
                found = [c["columns"][column.key]["k_error"] for c in calls if c]
                errors += [float(np.mean(found))] if found else []
            if errors:
                near = sum(error <= 0.3 for error in errors)
                lines.append(f"- {column.title}: {near} of {len(errors)}")
    return (
        "\n\nSets on which the estimate of K is within 30 % of the number of labels:\n\n" + "\n".join(lines)
        if lines
        else ""
    )
