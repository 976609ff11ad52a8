"""What a cell's total over all genes is, where the input alone does not tell: the genes found hold a usual share of it.

The encoder divides counts by the cell's total. A file of variable genes alone has much smaller totals, by which every
gene would look too high; logarithms of such a file do not say what they were scaled to. See
`docs/decisions/0002-student.md`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.blocks import LEFT_OUT, RowBlock, take_logs_back
from scrcl_infer.contract import Manifest
from scrcl_infer.genes import GeneMatch, label_gene
from scrcl_infer.look import BASES, TARGET_SUM, read_samples
from scrcl_infer.missing import StandIns
from scrcl_infer.result import GeneReport, MatrixReport
from scrcl_infer.source import Source

CUT = 1 / 3
"""Of the training data's genes: an input with a smaller share may have been cut to some."""
CHOSEN = 1.5
"""As many times more of the model's genes are left than of all: they were chosen. Of genes that are missing at random
the encoder has learned to do without."""
HEAVY = 0.125
"""Of the counts in the model's genes: where genes of more than that are missing, the totals are too small as well."""
AGREES = 2.0
"""Factor within which an estimated total and another are taken for the same."""


def are_chosen(manifest: Manifest, genes: GeneMatch) -> bool:
    """Whether the input was cut to chosen genes: a third of the training data's or fewer, many of the model's."""
    n_query, n_trained = genes.report.n_query, manifest.provenance.n_genes
    return 0 < n_query < CUT * n_trained and bool(genes.found.mean() >= CHOSEN * n_query / n_trained)


def sum_shares(manifest: Manifest, found: NDArray[np.bool_]) -> float:
    """Return the share of a training cell's counts that genes hold, those `found` (G,); 0 in schemas 1 to 6."""
    shares = zip(manifest.genes.count_shares, found.tolist(), strict=False)
    return min(math.fsum(share for share, is_there in shares if is_there), 1.0)


def settle_totals(
    source: Source, matrix: MatrixReport, genes: GeneMatch, manifest: Manifest, stand_ins: StandIns | None
) -> tuple[MatrixReport, GeneMatch]:
    """Return both with what has to be estimated of the cells' totals, if anything, and what stands in for genes.

    Where a cell's total is the sum of its values, and only chosen genes are there or genes of many counts are not, it
    is estimated cell by cell, by `GeneReport.count_share`. Where all cells were scaled to one total that is but
    assumed, and the cells by their usual share come to another, that is put right in the report.
    """
    share = sum_shares(manifest, genes.found)
    if not share:
        return matrix, genes
    if matrix.totals in ("assumed", "guessed"):
        matrix = _weigh_total(source, matrix, genes, manifest)
    lost = 0.0 if stand_ins is None else float(stand_ins.shares.sum(dtype=np.float64))
    is_cut = are_chosen(manifest, genes) or lost > HEAVY * sum(manifest.genes.count_shares)
    named = () if stand_ins is None else tuple(label_gene(manifest.genes, int(g)) for g in stand_ins.genes)
    estimated = share if is_cut and matrix.totals == "summed" else None
    return matrix, replace(genes, report=replace(genes.report, count_share=estimated, stand_ins=named))


def estimate_totals(blocks: Iterator[RowBlock], share: float | None) -> Iterator[RowBlock]:
    """Replace each cell's total by its counts in the model's genes over the share that these hold; None: leave them."""
    for block in blocks:
        if share is None:
            yield block
        else:
            library = block.counts.sum(axis=1, keepdims=True, dtype=np.float64) / share
            # No total is below the sum of what is there.
            yield replace(block, library_size=np.maximum(library.astype(np.float32), block.library_size))


def explain_gaps(manifest: Manifest, genes: GeneReport) -> list[str]:
    """Return a sentence for the user where totals are estimated, or something stands in for missing genes."""
    said = []
    if genes.stand_ins:
        named = ", ".join(genes.stand_ins[:5]) + (", ..." if len(genes.stand_ins) > 5 else "")
        said.append(f"genes that nearly every cell has are missing ({named}): their usual share stands in for them")
    if genes.count_share is not None:
        said.append(
            f"each cell's total is estimated from the {genes.n_found:,} genes of the model that are there, which hold "
            f"{genes.count_share:.1%} of it in the training data"
        )
    held = f"The input holds {genes.n_query:,} genes, the training data held {manifest.provenance.n_genes:,}"
    return [f"{held}; {'; '.join(said)}. A matrix of all genes is better."] if said else []


def _weigh_total(source: Source, matrix: MatrixReport, genes: GeneMatch, manifest: Manifest) -> MatrixReport:
    """Weigh the assumed total of logarithms against what a sample of cells comes to, by their own sums and by share."""
    share = sum_shares(manifest, genes.found)
    parts, sums = _sum_samples(source, matrix, genes.columns)
    estimate = float(np.median(parts[parts > 0])) / share if (parts > 0).any() else 0.0
    if not estimate:
        return matrix
    own, assumed = (
        1 / AGREES <= estimate / total <= AGREES for total in (float(np.median(sums)), matrix.target_sum or TARGET_SUM)
    )
    holds = f"No matrix holds whole numbers; {matrix.where} is taken for {BASES[matrix.log_base]} of scaled counts"
    is_whole, chosen = genes.report.n_query >= CUT * manifest.provenance.n_genes, are_chosen(manifest, genes)
    if own and (is_whole or not (assumed or chosen)):
        said = "the model's genes hold of the cells' own sums what they usually do, so these are taken for the totals."
        return replace(matrix, target_sum=None, totals="summed", reason=f"{holds}; {said}")
    if assumed or not chosen:
        return matrix
    total = float(f"{estimate:.2g}")
    said = (
        f"the model's genes that are left usually hold {share:.1%} of a cell, so {total:,.0f} is taken for the total."
    )
    return replace(matrix, target_sum=total, reason=f"{holds}; {said}")


def _sum_samples(
    source: Source, matrix: MatrixReport, columns: NDArray[np.int32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum a sample of cells with values (n,), logarithms taken back: of the model's genes, and of all genes."""
    parts: list[NDArray[np.float64]] = []
    sums: list[NDArray[np.float64]] = []
    for _, rows in read_samples(source, matrix.where):
        take_logs_back(rows.data, matrix.log_base)
        for found, kept in ((parts, columns >= 0), (sums, columns != LEFT_OUT)):
            found.append(np.asarray(rows[:, np.flatnonzero(kept)].sum(axis=1, dtype=np.float64)).ravel())
    total = np.concatenate(sums)
    return np.concatenate(parts)[total > 0], total[total > 0]
