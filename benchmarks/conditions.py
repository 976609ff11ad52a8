"""Queries made harder: counts thinned, genes taken away at random, or all but the variable ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from benchmarks.exchange import Query
from benchmarks.variable_genes import mark_variable


@dataclass(frozen=True)
class Condition:
    """What a query is left with."""

    depth: float = 1.0
    """Chance of each count to stay."""
    genes: float = 1.0
    """Share of the query's genes that stays, drawn at random."""
    variable: int | None = None
    """As many of the query's most variable genes stay."""

    @property
    def name(self) -> str:
        """Words for the table."""
        if self == Condition():
            return "as measured"
        if self.variable is not None:
            return f"{self.variable:,} variable genes"
        return f"{self.depth:.0%} of counts" if self.depth < 1 else f"{self.genes:.0%} of genes"

    def apply(self, query: Query, seed: int) -> Query:
        """Return the query so changed; the genes left at a share are among those left at any larger one."""
        rng = np.random.default_rng((seed, round(self.depth * 1000)))
        order = np.random.default_rng(seed).permutation(len(query.genes))
        columns = np.sort(order[: max(1, round(self.genes * len(order)))])
        if self.variable is not None:
            marked = mark_variable(query.counts, self.variable)
            columns = np.flatnonzero(marked.var["highly_variable"].to_numpy())
        counts = sp.csr_matrix(query.counts[:, columns])
        if self.depth < 1:
            counts = sp.csr_matrix(counts, copy=True)
            counts.data = rng.binomial(np.rint(counts.data).astype(np.int64), self.depth).astype(np.float32)
            counts.eliminate_zeros()
        return Query(counts, query.genes[columns], query.places)


DEPTHS = (0.5, 0.2, 0.1, 0.05)
SHARES = (0.6, 0.4, 0.2)
VARIABLE = (2000, 1000, 500)
CONDITIONS = (
    Condition(),
    *(Condition(depth=p) for p in DEPTHS),
    *(Condition(genes=p) for p in SHARES),
    *(Condition(variable=n) for n in VARIABLE),
)
