"""A cell's total where the input was cut to chosen genes: the genes that are left hold a usual share of it.

The encoder divides counts by the cell's total over all genes. A file of variable genes alone has much smaller totals,
by which every gene would look too high; see `docs/decisions/0002-student.md`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.blocks import RowBlock, take_logs_back
from scrcl_infer.contract import Manifest
from scrcl_infer.genes import GeneMatch
from scrcl_infer.look import TARGET_SUM, read_samples
from scrcl_infer.result import GeneReport, MatrixReport
from scrcl_infer.source import Source

CUT = 1 / 3
"""Of the training data's genes: an input with a smaller share may have been cut to some."""
CHOSEN = 1.5
"""As many times more of the model's genes are left than of all: they were chosen. Of genes that are missing at random
the encoder has learned to do without."""
AGREES = 2.0
"""Factor within which an estimated total and a usual one are taken for the same."""


def settle_totals(
    source: Source, matrix: MatrixReport, genes: GeneMatch, manifest: Manifest
) -> tuple[MatrixReport, GeneMatch]:
    """Return both with what has to be estimated of the cells' totals, if anything.

    Of counts each cell's total is estimated on its own, by `GeneReport.count_share`. Cells of logarithms have one
    total; where it is but assumed, and cells come to quite another by their usual share, it is put right in the report.
    """
    share = find_count_share(manifest, genes.found, genes.report.n_query)
    if share is None:
        return matrix, genes
    if matrix.state == "counts":
        return matrix, replace(genes, report=replace(genes.report, count_share=share))
    return _put_right(source, matrix, genes, share) if matrix.total_is_assumed else matrix, genes


def find_count_share(manifest: Manifest, found: NDArray[np.bool_], n_query: int) -> float | None:
    """Return the share of a cell's counts that the genes found hold, where totals have to be estimated from it.

    Parameters
    ----------
    manifest
        Of the model.
    found
        (G,) genes of the model that the input has.
    n_query
        Genes of the input.

    Returns
    -------
    float or None
        Mean over the training cells, in (0, 1]; None where the input's own totals are to be used: it holds a third of
        the training data's genes or more, or a random part of them, or the bundle does not know (schemas 1 to 6).
    """
    shares, n_trained = manifest.genes.count_shares, manifest.provenance.n_genes
    is_cut = 0 < n_query < CUT * n_trained
    if not shares or not is_cut or found.mean() < CHOSEN * n_query / n_trained:
        return None
    # Rounded once: the same to the last bit on every machine.
    share = math.fsum(share for share, is_there in zip(shares, found.tolist(), strict=True) if is_there)
    return min(share, 1.0) if share > 0 else None


def estimate_totals(blocks: Iterator[RowBlock], share: float | None) -> Iterator[RowBlock]:
    """Replace each cell's total by its counts in the model's genes over the share that these hold; None: leave them."""
    for block in blocks:
        if share is None:
            yield block
        else:
            library = block.counts.sum(axis=1, keepdims=True, dtype=np.float64) / share
            yield replace(block, library_size=library.astype(np.float32))


def _put_right(source: Source, matrix: MatrixReport, genes: GeneMatch, share: float) -> MatrixReport:
    """Replace the total that logarithms were scaled to, where a sample of the cells comes to quite another."""
    sums = []
    for _, rows in read_samples(source, matrix.where):
        take_logs_back(rows.data, matrix.log_base)
        sums.append(np.asarray(rows[:, np.flatnonzero(genes.columns >= 0)].sum(axis=1, dtype=np.float64)).ravel())
    found = np.concatenate(sums)
    estimate = float(np.median(found[found > 0])) / share if (found > 0).any() else 0.0
    assumed = matrix.target_sum or TARGET_SUM
    if not estimate or 1 / AGREES <= estimate / assumed <= AGREES:
        return matrix
    total = float(f"{estimate:.2g}")
    said = (
        f"The genes of the model that are left usually hold {share:.1%} of a cell: {total:,.0f} is taken for the total."
    )
    return replace(matrix, target_sum=total, reason=f"{matrix.reason} {said}")


def explain_totals(manifest: Manifest, genes: GeneReport) -> list[str]:
    """Return a sentence for the user where totals are estimated."""
    if genes.count_share is None:
        return []
    return [
        f"The input holds {genes.n_query:,} genes where the training data held {manifest.provenance.n_genes:,}, and "
        f"they were chosen: each cell's total is estimated from the {genes.n_found:,} genes of the model that are "
        f"left, which hold {genes.count_share:.1%} of it in the training data. A matrix of all genes is better."
    ]
