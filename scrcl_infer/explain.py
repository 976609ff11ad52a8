"""The genes that drove each type: the bundle's cell-gene association beside the query's own expression.

For a type t and a gene g of the model,

    association  a_tg  the bundle's association of the gene with populations, averaged over the populations that the
                       query's cells of the type fell in
    difference   d_tg  mean of log1p of counts per ten thousand in the cells of the type, minus that in all other cells
    score        a_tg d_tg, for genes with a positive association and a positive difference only

so a gene is listed where training tied it to the type and these cells express it more than the rest of the file. The
score is not the encoder's gradient: it says nothing of the weight the network gave the gene, of genes whose absence
counts, of combinations of genes, or of single cells; and it has no p-value.
"""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.atomic import check_path, write_atomically
from scrcl_infer.blocks import RowBlock
from scrcl_infer.contract import Bundle
from scrcl_infer.errors import OutputError
from scrcl_infer.result import AssignedBlock

TOP_GENES = 20
"""Genes listed for each type."""
ENDINGS = (".csv", ".tsv")
_STEP = 2.0**-20
"""Expression is added up in whole multiples of this: float64 adds them exactly, in whatever order they come."""


@dataclass(frozen=True)
class DrivingGene:
    """One gene of one type."""

    cell_type: str
    n_cells: int
    """Cells of the type in the query."""
    rank: int | None
    """From 1 by decreasing score; None for a gene that the query lacks."""
    gene: str
    """As the bundle names it."""
    symbol: str
    """'' where the bundle has none."""
    in_query: bool
    association: float
    """Of the type in the bundle, in [-1, 1]."""
    mean_expression: float | None
    """Mean of log1p of counts per ten thousand in the cells of the type; of a spatial bundle, after smoothing."""
    mean_others: float | None
    """The same in all other cells with counts; None where there are none."""
    difference: float | None
    """The first minus the second; the first alone where there are no other cells."""
    share_expressing: float | None
    """Share of the cells of the type with any count of the gene, in [0, 1]."""
    share_others: float | None
    score: float | None
    """`association` times `difference`."""


class DrivingGenes:
    """Adds up expression by type as blocks go by, in memory of a fixed size.

    Parameters
    ----------
    bundle
        The model.
    found
        (G,) whether the query has each gene.
    """

    def __init__(self, bundle: Bundle, found: NDArray[np.bool_]) -> None:
        self._manifest = bundle.manifest
        self._association = bundle.gene_graph.association.astype(np.float64)
        self._found = found
        # The last row is of unknown cells, whose index is -1.
        shape = len(self._manifest.cell_types) + 1, len(found)
        self._sums, self._expressing = np.zeros(shape), np.zeros(shape)
        self._cells = np.zeros((shape[0], len(self._manifest.populations)), dtype=np.int64)

    def add(self, counts: RowBlock, answers: AssignedBlock) -> None:
        """Add the cells of a block.

        Parameters
        ----------
        counts
            (N, G) counts and (N, 1) library sizes, as the encoder takes them.
        answers
            Types and populations of the same N cells.
        """
        from scipy.sparse import csr_matrix

        used = np.flatnonzero(answers.population >= 0)
        rows = csr_matrix(counts.counts[used], dtype=np.float64)
        scale = self._manifest.encoder.target_sum / np.maximum(counts.library_size[used, 0].astype(np.float64), 1.0)
        rows.data = np.rint(np.log1p(rows.data * np.repeat(scale, np.diff(rows.indptr))) / _STEP)
        of_type = answers.cell_type[used] % len(self._cells)
        member = csr_matrix((np.ones(len(used)), (of_type, np.arange(len(used)))), (len(self._cells), len(used)))
        self._sums += (member @ rows).toarray()
        rows.data[:] = 1
        self._expressing += (member @ rows).toarray()
        np.add.at(self._cells, (of_type, answers.population[used]), 1)

    def explain(self, *, n_top: int = TOP_GENES) -> list[dict[str, Any]]:
        """Return the genes of each type that was assigned, as the plain values of `DrivingGene`.

        First come at most `n_top` genes by decreasing score, then those that the query lacks among the `n_top` genes
        most associated with the type. Types are in the model's order.
        """
        rows: list[DrivingGene] = []
        for number in np.flatnonzero(self._cells[:-1].sum(axis=1)):
            rows += self._explain_type(int(number), n_top)
        return [asdict(row) for row in rows]

    def _explain_type(self, number: int, n_top: int) -> list[DrivingGene]:
        cells = self._cells[number]
        n_cells, n_others = int(cells.sum()), int(self._cells.sum() - cells.sum())
        association = (cells / n_cells) @ self._association
        mean, share = self._sums[number] * _STEP / n_cells, self._expressing[number] / n_cells
        others = (self._sums.sum(axis=0) - self._sums[number]) * _STEP / max(1, n_others)
        share_others = (self._expressing.sum(axis=0) - self._expressing[number]) / max(1, n_others)
        difference = mean - others
        score = np.where(self._found & (association > 0) & (difference > 0), association * difference, 0.0)
        top = np.argsort(-score, kind="stable")[:n_top]
        tied = np.argsort(-association, kind="stable")[:n_top]
        genes, name = self._manifest.genes, self._manifest.cell_types[number].name

        def describe(gene: int, rank: int | None) -> DrivingGene:
            known, compared = rank is not None, rank is not None and n_others > 0
            return DrivingGene(
                cell_type=name,
                n_cells=n_cells,
                rank=rank,
                gene=genes.names[gene],
                symbol=genes.symbols[gene],
                in_query=known,
                association=_short(association[gene]),
                mean_expression=_short(mean[gene]) if known else None,
                mean_others=_short(others[gene]) if compared else None,
                difference=_short(difference[gene]) if known else None,
                share_expressing=_short(share[gene]) if known else None,
                share_others=_short(share_others[gene]) if compared else None,
                score=_short(score[gene]) if known else None,
            )

        listed = [describe(int(gene), rank) for rank, gene in enumerate(top, 1) if score[gene] > 0]
        return listed + [describe(int(gene), None) for gene in tied if not self._found[gene] and association[gene] > 0]


def check_explanation(path: Path, *, force: bool, inputs: tuple[Path, ...] = ()) -> None:
    """Refuse a table that cannot or must not be written, before any work is done.

    Raises
    ------
    OutputError
        Its name ends in neither `.csv` nor `.tsv`; else see `check_path`.
    """
    if path.suffix.lower() not in ENDINGS:
        msg = f"Cannot tell from '{path.name}' what to write: its name must end in one of {', '.join(ENDINGS)}."
        raise OutputError(msg)
    check_path(path, force=force, inputs=inputs)


def write_explanation(rows: list[dict[str, Any]], path: Path, *, force: bool = False) -> None:
    """Write what `DrivingGenes.explain` returned as a table, whole or not at all; what is not known is left empty.

    Raises
    ------
    OutputError
        See `check_explanation`.
    """
    check_explanation(path, force=force)
    text = io.StringIO()
    separator = "," if path.suffix.lower() == ".csv" else "\t"
    table = csv.DictWriter(text, [f.name for f in fields(DrivingGene)], delimiter=separator, lineterminator="\n")
    table.writeheader()
    table.writerows({**row, "in_query": "yes" if row["in_query"] else "no"} for row in rows)
    write_atomically(path, text.getvalue().encode(), force=force)


def _short(value: float) -> float:
    return round(float(value), 6)
