"""Whether a file's cells as a whole look like the data that the model was trained on, and the warning where not.

Cells one by one may be unknown in any good file. A file of another tissue or species shows in the whole: most of its
cells are strange to the model, or its genes are another species'.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.contract import UNKNOWN, Manifest
from scrcl_infer.gene_names import FISH
from scrcl_infer.genes import ANY_CASE_OVERLAP
from scrcl_infer.record import Record
from scrcl_infer.result import AssignedBlock, GeneReport
from scrcl_infer.totals import CUT

MANY_STRANGE = 0.5
"""Share of strange cells from which on a file is doubted; known data give about 0.05."""
SPELLED_ALIKE = {
    "Rattus norvegicus": "Mus musculus", "Macaca mulatta": "Homo sapiens", "Macaca fascicularis": "Homo sapiens",
    "Sus scrofa": "Homo sapiens", "Gallus gallus": "Homo sapiens",
}  # fmt: skip
"""Species whose symbols are taken for those of another, as only their case is looked at."""
_EDGES = np.linspace(-50, 200, 1001)
"""Of the histogram of strangeness, so that its median can be told in constant memory."""


@dataclass(frozen=True)
class Familiarity(Record):
    """How a file's cells compare with the model's data; part of the report."""

    strange_share: float | None
    """Share of the cells with counts that are strange (above 0), whether they were rejected or not; None where the
    model measures no strangeness."""
    median_strangeness: float | None
    """To a quarter; known data lie below 0."""
    weighted_overlap: float
    """Share of the model's evidence that rests on the file's genes."""
    species: str
    """That the file's gene names point to, 'unknown' where to none."""
    model_species: str


class FamiliarityTally:
    """Sums up the strangeness of blocks, in constant memory."""

    def __init__(self) -> None:
        self.n_strange = 0
        self.histogram: NDArray[np.int64] = np.zeros(len(_EDGES) + 1, dtype=np.int64)

    def add(self, block: AssignedBlock) -> None:
        """Count a block."""
        if block.strangeness is not None:
            values = block.strangeness[block.population >= 0]
            self.n_strange += int((values > 0).sum())
            self.histogram += np.bincount(np.searchsorted(_EDGES, values), minlength=len(self.histogram))

    def summarise(self, genes: GeneReport) -> Familiarity:
        """Return what was seen so far."""
        n = int(self.histogram.sum())
        share = median = None
        if n:
            share = self.n_strange / n
            at = int(np.searchsorted(np.cumsum(self.histogram), n / 2))
            median = float(_EDGES[min(at, len(_EDGES) - 1)])
        return Familiarity(share, median, genes.weighted_overlap, genes.species, genes.model_species)


def doubt(
    found: Familiarity,
    manifest: Manifest,
    genes: GeneReport,
    *,
    unknown_share: float,
    mean_confidence: float | None = None,
    totals_are_known: bool = False,
) -> list[str]:
    """Return warnings: that the cells do not look like the model's data, or that genes of weight are missing.

    Parameters
    ----------
    found
        Of the whole file.
    manifest
        Of the model.
    genes
        How the query's genes met the model's.
    unknown_share
        Share of the cells that were called unknown; stands in for strangeness where the model measures none.
    mean_confidence
        Of the cells with counts. Cells that show few of the model's genes look like any cell that shows as few, so that
        strangeness may not tell them; the encoder's doubt does.
    totals_are_known
        Whether what the cells were scaled to is known, as of logarithms: then it does not matter which genes are left.
    """
    reasons = []
    share = unknown_share if found.strange_share is None else found.strange_share
    if share >= MANY_STRANGE:
        reasons.append(f"{share:.0%} of the cells are unknown to it, where its own kind of data give about 5%")
        if found.median_strangeness is not None and found.median_strangeness > 0:
            reasons.append(f"their median strangeness is {found.median_strangeness:.3g}, where known cells lie below 0")
    usual = manifest.calibration.threshold
    if mean_confidence is not None and mean_confidence < usual:
        reasons.append(
            f"the confidence of its answers is {mean_confidence:.2f} on average, where nearly every cell of its own "
            f"kind has {usual:.2f} or more"
        )
    if _are_other_species(found):
        reasons.append(f"the gene names are those of {found.species}, the model's those of {found.model_species}")
    n_known = manifest.provenance.n_genes
    if reasons and not totals_are_known and genes.count_share is None and 0 < genes.n_query < CUT * n_known:
        reasons.append(
            f"the input holds {genes.n_query:,} genes where the training data held {n_known:,}: were it cut to some of "
            "its genes, the totals of its cells would be too small. Give the matrix of all genes, if there is one"
        )
    few = found.weighted_overlap < manifest.genes.warn_overlap
    if not reasons:
        missed = ", ".join(genes.missing_top[:5])
        text = f"Only {found.weighted_overlap:.0%} of the model's evidence rests on genes of this input: answers are "
        return [f"{text}less certain, and more cells unknown. Most missed: {missed}."] if few else []
    if few:
        reasons.append(f"only {found.weighted_overlap:.0%} of the model's evidence rests on the genes of this input")
    return [
        f"These cells do not look like the data of the model '{manifest.name}': {'; '.join(reasons)}. Is the model of "
        f"the right species and tissue? Its types: {_few(manifest)}."
    ]


def _are_other_species(found: Familiarity) -> bool:
    """Whether the names of genes speak for another species than the model's; small letters may be a matter of taste."""
    if UNKNOWN in (found.species, found.model_species):
        return False
    if found.species == FISH and found.weighted_overlap >= ANY_CASE_OVERLAP:
        return False
    return found.species not in (found.model_species, SPELLED_ALIKE.get(found.model_species))


def _few(manifest: Manifest) -> str:
    names = [cell_type.name for cell_type in manifest.cell_types]
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
