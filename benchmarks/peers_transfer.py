"""Methods that learn types on one batch and answer for another: scRCL, CellTypist, logistic regression, kNN, ingest."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks.celltypist_env import CELLTYPIST, answer_celltypist
from benchmarks.celltypist_env import NOTE as CELLTYPIST_NOTE
from benchmarks.code import hash_deciding_code
from benchmarks.exchange import Query
from benchmarks.learners import (
    MAX_VALUE,
    N_HVGS,
    N_NEIGHBORS,
    N_PCS,
    Ask,
    Reference,
    choose_genes,
    learn_ingest,
    learn_logistic,
    learn_nearest,
)
from benchmarks.methods import Column, Method, Outcome
from benchmarks.ours_transfer import LABELLED, N_NAMED, UNLABELLED, learn_ours
from benchmarks.pairs import Transfer
from benchmarks.scvi_env import HOW, SCANVI, SCANVI_SETTINGS, answer_scanvi

OURS_PACKAGES = ("anndata", "numpy", "onnxruntime", "scanpy", "scikit-learn", "scipy", "torch")
PEER_PACKAGES = ("anndata", "numpy", "pynndescent", "scanpy", "scikit-learn", "scipy")
PACKAGES = tuple(sorted({*OURS_PACKAGES, *PEER_PACKAGES}))
SIMPLE_SETTINGS = {"hvgs": N_HVGS, "pcs": N_PCS, "neighbors": N_NEIGHBORS, "max_value": MAX_VALUE}

Learn = Callable[[Reference, NDArray[np.object_], int], Ask]


def query_of(cells: Transfer) -> Query:
    """Return the query of a pair."""
    return Query(cells.query_counts, cells.query_genes, cells.query_places)


def run_ours(prepared: None, cells: Transfer, seed: int) -> Outcome:
    """Train with and without labels, and assign the query."""
    learned = learn_ours(cells, seed)
    return Outcome({kind: one.answer(query_of(cells)) for kind, one in learned.items()})


def make_simple(name: str, title: str, learn: Learn) -> Method:
    """Return a simple method, which sees the genes that reference and query share."""

    def run(reference: Reference, cells: Transfer, seed: int) -> Outcome:
        return Outcome({name: learn(reference, cells.labels, seed)(reference.read(query_of(cells)))})

    return Method(
        name,
        (Column(name, title, "given"),),
        lambda cells: choose_genes(cells, shared=True),
        run,
        version="2",
        settings=SIMPLE_SETTINGS,
        packages=PEER_PACKAGES,
    )


OURS = Method(
    "ours",
    (
        Column(LABELLED, "scRCL, with labels", "given", is_ours=True),
        Column(UNLABELLED, "scRCL, without labels", "given", is_ours=True),
    ),
    lambda cells: None,
    run_ours,
    version=hash_deciding_code(),
    settings={"named": N_NAMED},
    packages=OURS_PACKAGES,
    needs=("torch", "onnxscript"),
)
CELLTYPIST_METHOD = Method(
    "celltypist",
    (Column("celltypist", "CellTypist", "given", CELLTYPIST_NOTE),),
    lambda cells: answer_celltypist(cells.counts, cells.genes, cells.labels, [query_of(cells)], is_log=cells.is_log)[0],
    lambda answers, cells, seed: Outcome({"celltypist": answers}),
    settings={"requirements": CELLTYPIST.requirements},
    environment=CELLTYPIST,
)
SCANVI_METHOD = Method(
    "scanvi",
    (
        Column(
            "scanvi",
            "scANVI",
            "given",
            note=f"{HOW}; its default numbers of epochs and 100 for the query.",
        ),
    ),
    lambda cells: None,
    lambda _, cells, seed: Outcome(
        {"scanvi": answer_scanvi(cells.counts, cells.genes, cells.labels, query_of(cells), seed=seed)}
    ),
    settings={"requirements": SCANVI.requirements, **SCANVI_SETTINGS},
    environment=SCANVI,
    suits=lambda item: not getattr(item, "is_log", False),
)
METHODS: tuple[Method, ...] = (
    OURS,
    CELLTYPIST_METHOD,
    make_simple("logistic", "logistic regression", learn_logistic),
    make_simple("knn", "kNN on PCs", learn_nearest),
    make_simple("ingest", "scanpy ingest", learn_ingest),
    SCANVI_METHOD,
)
