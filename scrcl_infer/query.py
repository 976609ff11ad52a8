"""An open input as a model sees it: which matrix holds its counts, which genes it has, and its cells in blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scrcl_infer.blocks import RowBlock
from scrcl_infer.contract import Bundle, Manifest
from scrcl_infer.errors import InputError
from scrcl_infer.genes import GeneMatch, match_genes
from scrcl_infer.h5ad import Source, iter_blocks, open_source
from scrcl_infer.matrix import choose_matrix, to_counts
from scrcl_infer.missing import StandIns, fill_missing, find_stand_ins
from scrcl_infer.result import AssignOptions, MatrixReport
from scrcl_infer.spatial import Spots, read_spots, smooth_blocks
from scrcl_infer.totals import are_chosen, estimate_totals, settle_totals

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Query:
    """An open input, with the matrix to read and the columns to take from it."""

    source: Source
    matrix: MatrixReport
    genes: GeneMatch
    stand_ins: StandIns | None = None
    """For genes that it lacks."""
    spots: Spots | None = None
    """Where the spots lie; for spatial bundles only."""


@contextmanager
def open_query(data: Path | str | AnnData, bundle: Bundle, options: AssignOptions) -> Iterator[Query]:
    """Open a file or an AnnData, find the counts and match the genes with those of a bundle.

    Raises
    ------
    InputError, MatrixError, GeneOverlapError
        The query cannot be used; the text says what to do.
    """
    manifest = bundle.manifest
    if manifest.spatial is None and options.section is not None:
        msg = (
            f"Bundle '{manifest.name}' answers for each cell on its own and knows no sections. "
            "Leave out --section, or name a bundle trained with --spatial."
        )
        raise InputError(msg)
    with open_source(data) as source:
        spots = None if manifest.spatial is None else read_spots(source, section_key=options.section)
        matrix = choose_matrix(source, layer=options.layer, state=options.input_state)
        genes = match_genes(
            source, matrix.where, manifest.genes, gene_column=options.gene_column, min_overlap=options.min_overlap
        )
        stand_ins = find_stand_ins(bundle, genes.found, chosen=are_chosen(manifest, genes))
        matrix, genes = settle_totals(source, matrix, genes, manifest, stand_ins)
        yield Query(source, matrix, genes, stand_ins, spots)


def iter_counts(query: Query, manifest: Manifest, *, block_size: int, threads: int) -> Iterator[RowBlock]:
    """Yield all cells in order as blocks (N, G) of counts of the model's genes, as the encoder takes them.

    Totals and genes that nearly every cell has are put right where the file lacks them; for a spatial bundle the counts
    are smoothed over the spots.
    """
    stored = iter_blocks(
        query.source,
        query.matrix.where,
        block_size=block_size,
        columns=query.genes.columns,
        n_columns=len(manifest.genes.names),
        threads=threads,
        log_base=None if query.matrix.state == "counts" else query.matrix.log_base,
    )
    blocks = estimate_totals((to_counts(block, query.matrix) for block in stored), query.genes.report.count_share)
    blocks = fill_missing(blocks, query.stand_ins)
    if query.spots is not None and (spec := manifest.spatial) is not None:
        genes, target = len(manifest.genes.names), manifest.encoder.target_sum
        blocks = smooth_blocks(blocks, query.spots, spec, target_sum=target, n_genes=genes)
    return blocks
