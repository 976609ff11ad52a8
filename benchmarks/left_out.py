"""One type left out of training: which cells a method sees, and which it is asked about."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from benchmarks.datasets import DataSet, Labelled, load_set
from scrcl_infer.errors import InputError

MIN_CELLS = 20
"""Of the left-out type."""
MIN_OTHERS = 3
"""Other types that must remain."""
HELD_OUT = 0.2
"""Share of each known type that is not learned."""
MAX_CELLS = {"known": 1500, "novel": 300, "batch": 500}
"""Drawn at random where there are more."""
DEPTHS = (1.0, 0.2, 0.05)
"""Shares of the counts at which the cells are asked about."""


@dataclass(frozen=True)
class Question:
    """What a method may see: cells with their types, and cells to give a confidence for (n and m cells)."""

    name: str
    counts: sp.csr_matrix
    """(n, g) float32 raw counts."""
    genes: NDArray[np.object_]
    labels: NDArray[np.object_]
    """(n,)"""
    query_counts: sp.csr_matrix
    """(m, h)"""
    query_genes: NDArray[np.object_]
    n_types: int
    fingerprint: str
    is_log: bool = False


@dataclass(frozen=True)
class Asked:
    """A question and what its query cells are: (m,) such as 'known 0.05', 'novel 1', 'batch 0.2'."""

    cells: Question
    labels: NDArray[np.object_]
    left_out: str


@dataclass(frozen=True)
class Source:
    """A labelled set whose types are left out in turn."""

    data: DataSet
    batches: tuple[str, ...] = ()
    """Batches that are learned; cells of the others are 'batch'. Empty: all are."""
    other: DataSet | None = None
    """A file whose cells of known types are 'batch'."""

    def learned(self, data: Labelled) -> NDArray[np.bool_]:
        """Tell which cells of the set, read, are of learned batches."""
        if self.batches and data.cells.batch is not None:
            return np.isin(data.cells.batch, self.batches)
        return np.ones(len(data.labels), dtype=bool)

    def cases(self) -> tuple[LeftOut, ...]:
        """Return one case for each type that is large enough."""
        data = load_set(self.data)
        n = len(choose_types(data.labels[self.learned(data)]))
        return tuple(LeftOut(self, rank) for rank in range(1, n + 1))


@dataclass(frozen=True)
class LeftOut:
    """A labelled set without its `rank`-th type."""

    source: Source
    rank: int
    """From 1, the largest type."""

    @property
    def name(self) -> str:
        """Name in the table."""
        return f"{self.source.data.name} {self.rank}"

    def key(self) -> dict[str, str]:
        """Return what of the data decides an answer."""
        source = self.source
        other = {} if source.other is None else {"other": source.other.key()["data"]}
        rules = repr((self, MIN_CELLS, HELD_OUT, sorted(MAX_CELLS.items()), DEPTHS))
        return {**source.data.key(), **other, "rules": rules}

    def load(self) -> Asked:
        """Read the set and deal its cells."""
        data = load_set(self.source.data)
        inside = self.source.learned(data)
        left_out = choose_types(data.labels[inside])[self.rank - 1]
        rng = np.random.default_rng(0)
        known = _draw(np.flatnonzero(inside & (data.labels != left_out)), MAX_CELLS["known"], rng)
        held_out = _hold_out(data.labels[known], rng)
        learned, asked = known[~held_out], known[held_out]
        counts, genes = _unique(data)
        groups = {"known": counts[asked], "novel": counts[_draw(np.flatnonzero(data.labels == left_out), 300, rng)]}
        types = set(data.labels[learned])
        if not inside.all():
            rows = np.flatnonzero(~inside & np.isin(data.labels, list(types)))
            groups["batch"] = counts[_draw(rows, MAX_CELLS["batch"], rng)]
        elif self.source.other is not None:
            groups["batch"] = _other_file(load_set(self.source.other), genes, types, rng)
        parts = {f"{name} {share:g}": _thin(cells, share) for name, cells in groups.items() for share in DEPTHS}
        what = np.repeat(np.array(list(parts), dtype=object), [part.shape[0] for part in parts.values()])
        query = sp.csr_matrix(sp.vstack(list(parts.values())))
        question = Question(
            self.name,
            counts[learned],
            genes,
            data.labels[learned],
            query,
            genes,
            len(types),
            f"{self.key()}",
        )
        return Asked(question, what, str(left_out))


def choose_types(labels: NDArray[np.object_]) -> list[str]:
    """Return the types to leave out in turn, largest first.

    Raises
    ------
    InputError
        No type is large enough, or too few would remain.
    """
    names, sizes = np.unique(labels.astype(str), return_counts=True)
    order = np.argsort(-sizes, kind="stable")
    enough = [str(names[i]) for i in order if sizes[i] >= MIN_CELLS]
    if not enough or len(names) <= MIN_OTHERS:
        msg = f"{len(enough)} of {len(names)} types have {MIN_CELLS} cells or more; {MIN_OTHERS} others must remain."
        raise InputError(msg)
    return enough


def _draw(rows: NDArray[np.int64], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(rng.permutation(rows)[:n])


def _hold_out(labels: NDArray[np.object_], rng: np.random.Generator) -> NDArray[np.bool_]:
    held_out = np.zeros(len(labels), dtype=bool)
    for name in np.unique(labels.astype(str)):
        cells = rng.permutation(np.flatnonzero(labels == name))
        held_out[cells[: round(HELD_OUT * len(cells))]] = True
    return held_out


def _unique(data: Labelled) -> tuple[sp.csr_matrix, NDArray[np.object_]]:
    _, first = np.unique(data.cells.genes.astype(str), return_index=True)
    keep = np.sort(first)
    return sp.csr_matrix(data.cells.counts[:, keep]), data.cells.genes[keep]


def _other_file(data: Labelled, genes: NDArray[np.object_], types: set[str], rng: np.random.Generator) -> sp.csr_matrix:
    """Cells of known types of another file, in the order of `genes`; a gene that it lacks has no counts."""
    rows = _draw(np.flatnonzero(np.isin(data.labels, list(types))), MAX_CELLS["batch"], rng)
    counts, own = _unique(data)
    _, to, source = np.intersect1d(genes.astype(str), own.astype(str), return_indices=True)
    place = sp.csr_matrix((np.ones(len(to), np.float32), (source, to)), (len(own), len(genes)))
    return sp.csr_matrix(counts[rows] @ place)


def _thin(counts: sp.csr_matrix, share: float) -> sp.csr_matrix:
    if share == 1:
        return counts
    thinned = counts.copy()
    rng = np.random.default_rng(1)
    thinned.data = rng.binomial(np.rint(thinned.data).astype(np.int64), share).astype(np.float32)
    thinned.eliminate_zeros()
    return thinned
