"""Robustness benchmark: learn once, map the same cells with fewer counts and with fewer genes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.celltypist_env import CELLTYPIST, answer_celltypist
from benchmarks.conditions import CONDITIONS
from benchmarks.exchange import Query
from benchmarks.learners import Reference, choose_genes, learn_ingest, learn_logistic, learn_nearest
from benchmarks.methods import Column, Method, Outcome
from benchmarks.ours_transfer import LABELLED, learn_ours
from benchmarks.pairs import PAIRS, Transfer, choose_pairs
from benchmarks.peers_transfer import OURS, PACKAGES, PEER_PACKAGES, SIMPLE_SETTINGS, Learn, query_of
from benchmarks.runner import Item, Plan, Results
from benchmarks.table import Table, write_table
from benchmarks.transfer import score

__all__ = ["METHODS", "SETS", "choose_sets", "find_method", "make_table", "score", "write_results"]

SETS = tuple(pair for pair in PAIRS if pair.name in {"Baron mouse 1 to 2", "lung 1 to 3", "pbmc3k to Zheng"})
METRICS = ("macro_f1", "accuracy", "weighted_f1")
SETTINGS = {"conditions": [condition.name for condition in CONDITIONS]}
choose_sets = choose_pairs

PROTOCOL = """\
Every method learns once per pair and seed from the reference as it is, all of its genes, and answers for the query as
measured; for the query with each count kept by a coin of the stated chance (binomial); for the query with a share
of its file's genes, drawn at random by the seed, so that about that share of each method's own genes is left; and for
the counts of the query's own most variable genes alone (scanpy, `seurat`), as files are often kept. Totals are taken
over the genes that are left; ours estimates those of a file that was cut to chosen genes, and stands in for genes that
every cell has. All methods get the very same cells. Genes that are missing are zeros to logistic regression, kNN and
`ingest`; CellTypist and ours match genes by themselves. No rejection, and ours refuses no query for its missing genes.
The rest is as in the transfer benchmark."""

Answer = Callable[[Any, Transfer, int, Sequence[Query]], list[NDArray[np.object_]]]
"""(prepared, reference, seed, queries) -> types and confidences (2, m) of each query."""


@dataclass(frozen=True)
class Row:
    """A pair under a condition: one row of the table."""

    name: str
    pair: Item

    def key(self) -> dict[str, str]:
        """Return that of the pair."""
        return self.pair.key()

    def load(self) -> Any:  # noqa: ANN401 - as `Item`
        """Read the pair."""
        return self.pair.load()


def make_queries(cells: Transfer, seed: int) -> list[Query]:
    """Return the query under each condition."""
    return [condition.apply(query_of(cells), seed) for condition in CONDITIONS]


def make_method(method: Method, key: str, title: str, answer: Answer) -> Method:
    """Return a method of this benchmark: it has one column for each condition.

    Parameters
    ----------
    method
        Says how to prepare, and what the answers depend on.
    key, title
        Of its column in the table.
    answer
        Learns once and answers for all queries.
    """

    def run(prepared: Any, cells: Transfer, seed: int) -> Outcome:  # noqa: ANN401 - what the method prepared
        answers = answer(prepared, cells, seed, make_queries(cells, seed))
        names = [column_of(key, condition.name) for condition in CONDITIONS]
        return Outcome(dict(zip(names, answers, strict=True)))

    first = Column(key, title, "given", is_ours=any(c.is_ours for c in method.columns))
    columns = tuple(replace(first, key=column_of(key, condition.name)) for condition in CONDITIONS)
    return replace(method, name=key, columns=columns, run=run, settings=dict(method.settings) | SETTINGS)


def column_of(key: str, condition: str) -> str:
    """Return the key of a method's column under a condition."""
    return f"{key}@{condition}"


def make_simple(key: str, title: str, learn: Learn) -> Method:
    """Return logistic regression, kNN or `ingest`, which has seen all genes of the reference."""

    def answer(reference: Reference, cells: Transfer, seed: int, queries: Sequence[Query]) -> list[NDArray[np.object_]]:
        ask = learn(reference, cells.labels, seed)
        return [ask(reference.read(query)) for query in queries]

    base = Method(
        key,
        (),
        lambda cells: choose_genes(cells, shared=False),
        lambda *_: Outcome({}),
        settings=SIMPLE_SETTINGS,
        packages=PEER_PACKAGES,
    )
    return make_method(base, key, title, answer)


def answer_ours(_: None, cells: Transfer, seed: int, queries: Sequence[Query]) -> list[NDArray[np.object_]]:
    """Train with labels and assign each query."""
    learned = learn_ours(cells, seed, (LABELLED,))[LABELLED]
    return [learned.answer(query) for query in queries]


def answer_typist(_: None, cells: Transfer, seed: int, queries: Sequence[Query]) -> list[NDArray[np.object_]]:
    """Train CellTypist with its defaults and ask it for each query."""
    del seed  # nothing in it is drawn
    return answer_celltypist(cells.counts, cells.genes, cells.labels, queries, is_log=cells.is_log)


METHODS: tuple[Method, ...] = (
    make_method(OURS, LABELLED, "scRCL, with labels", answer_ours),
    make_method(
        Method(
            "celltypist",
            (),
            lambda cells: None,
            lambda *_: Outcome({}),
            settings={"requirements": CELLTYPIST.requirements},
            environment=CELLTYPIST,
        ),
        "celltypist",
        "CellTypist",
        answer_typist,
    ),
    make_simple("logistic", "logistic regression", learn_logistic),
    make_simple("knn", "kNN on PCs", learn_nearest),
    make_simple("ingest", "scanpy ingest", learn_ingest),
)


def find_method(name: str, methods: tuple[Method, ...]) -> Method | None:
    """Return a method by name."""
    return next((method for method in methods if method.name == name), None)


def make_table(plan: Plan, results: Results, n_types: dict[str, int]) -> Table:
    """Return the table of finished calls: a row for each pair and condition."""
    rows = tuple(Row(row_of(pair.name, c.name), pair) for c in CONDITIONS for pair in plan.sets)
    methods = tuple(replace(m, columns=(replace(m.columns[0], key=m.name),)) for m in plan.methods)
    groups = tuple((f"mean, {c.name}", tuple(row_of(p.name, c.name) for p in plan.sets)) for c in CONDITIONS)
    notes = {row.name: f" ({n_types[row.pair.name]} shared types)" for row in rows if row.pair.name in n_types}
    return Table(
        "robustness",
        PROTOCOL,
        METRICS,
        groups,
        replace(plan, methods=methods, sets=rows),
        spread(results),
        PACKAGES,
        kinds={"given": "query cells of shared types"},
        row_notes=notes,
    )


def row_of(pair: str, condition: str) -> str:
    """Return the name of a row."""
    return f"{pair}, {condition}"


def spread(results: Results) -> Results:
    """Return results with one call for each condition, and one column in each."""
    calls = {
        (method, row_of(pair, c.name), seed): call | {"columns": {method: call["columns"][column_of(method, c.name)]}}
        for (method, pair, seed), call in results.calls.items()
        for c in CONDITIONS
    }
    failures = {
        (method, row_of(pair, c.name), seed): text
        for (method, pair, seed), text in results.failures.items()
        for c in CONDITIONS
    }
    return Results(calls, failures)


def write_results(table: Table, folder: Path) -> tuple[Path, ...]:
    """Write the Markdown, the JSON and the picture; return the paths."""
    from benchmarks.curves import draw_curves

    return (*write_table(table, folder), draw_curves(table, folder / "robustness.svg"))
