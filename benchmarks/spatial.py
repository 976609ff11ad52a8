"""Spatial benchmark: domains of tissue sections, every method with and without the authors' 50-spot vote."""

from __future__ import annotations

from benchmarks.clustering import score
from benchmarks.datasets import SPATIAL
from benchmarks.methods import Method
from benchmarks.ours_spatial import OURS, find_method
from benchmarks.peers_clustering import PEER_PACKAGES
from benchmarks.peers_spatial import PEERS
from benchmarks.runner import Plan, Results
from benchmarks.table import Table

__all__ = ["METHODS", "SETS", "find_method", "make_table", "score"]

SETS = SPATIAL
METHODS: tuple[Method, ...] = (*OURS, *PEERS)
METRICS = ("ari", "nmi", "accuracy", "macro_f1", "n_clusters")
PACKAGES = (*PEER_PACKAGES, "torch")

PROTOCOL = """\
Every method sees the raw counts and the places of the spots that carry an annotation, no labels; one setting for all
sections, each section alone. Under *K given* it is also told the number of domains. *Voted* columns: every spot's
answer replaced by the majority of its 50 nearest spots, the authors' refinement, applied to every method alike.

Peers: counts per ten thousand, log1p, all genes that three spots express, standardised per gene and clipped at 10;
20 PCs, averaged 10 times over the symmetrically normalised graph of the 5 nearest spots; then a Gaussian mixture with
one covariance for all components (best of 5 starts), k-means (best of 10), Ward, or Leiden on 15 neighbours."""


def make_table(plan: Plan, results: Results, n_types: dict[str, int]) -> Table:
    """Return the table of finished calls."""
    names = [item.name for item in plan.sets]
    groups = (
        ("mean of the two DLPFC sections", tuple(n for n in names if n.startswith("DLPFC"))),
        ("mean of all", tuple(names)),
    )
    notes = {name: f" (K = {k})" for name, k in n_types.items()}
    shown = tuple(group for group in groups if group[1])
    return Table("spatial", PROTOCOL, METRICS, shown, plan, results, PACKAGES, row_notes=notes)
