"""What stands in for genes that the input lacks and nearly every cell has.

Ribosomal genes, or all but the variable ones, are often taken out of a file. A cell without any count in a gene that
every cell shows is like none that was learned; with the gene's usual share of the cell's counts in its place it says
nothing, neither for nor against any class. See `docs/decisions/0002-student.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.blocks import RowBlock
from scrcl_infer.contract import Bundle
from scrcl_infer.encoder import EncoderOutput

EVERYWHERE = 6
"""Rarity up to which a gene is one that the cells of a class have: two thirds of them show it at three times the median
depth."""
MOSTLY_FOUND = 0.5
"""Of the model's genes. Of fewer, where they are missing at random, the stand-ins would say more than the cell."""


class StandIns(NamedTuple):
    """For which genes something stands in, and what."""

    genes: NDArray[np.int64]
    """(s,) indices among the model's genes."""
    shares: NDArray[np.float32]
    """(s,) of a cell's total."""
    rarity: NDArray[np.float64]
    """(s, C) of these genes in the classes."""


def find_stand_ins(bundle: Bundle, found: NDArray[np.bool_], *, chosen: bool) -> StandIns | None:
    """Choose genes that the input lacks and the training cells of every class have.

    Parameters
    ----------
    bundle
        One of schemas 1 to 6 does not know how many counts a gene has.
    found
        (G,) genes that the input has.
    chosen
        Whether these were chosen, so that others are not missing at random.

    Returns
    -------
    StandIns or None
        None where there is no such gene, or fewer than half of the model's genes are left at random.
    """
    shares, rejection = bundle.manifest.genes.count_shares, bundle.rejection
    if not shares or rejection is None or not (chosen or found.mean() >= MOSTLY_FOUND):
        return None
    share = np.array(shares, dtype=np.float32)
    genes = np.flatnonzero(~found & (share > 0) & (rejection.rarity <= EVERYWHERE).all(axis=1))
    return StandIns(genes, share[genes], rejection.rarity[genes].astype(np.float64)) if genes.size else None


def fill_missing(blocks: Iterator[RowBlock], stand_ins: StandIns | None) -> Iterator[RowBlock]:
    """Put the genes' shares of each cell's total into blocks, (N, G) counts each."""
    for block in blocks:
        if stand_ins is not None:
            counts = block.counts.copy()
            counts[:, stand_ins.genes] = block.library_size * stand_ins.shares
            yield replace(block, counts=counts)
        else:
            yield block


def count_detected(counts: NDArray[np.float32], stand_ins: StandIns | None) -> NDArray[np.int64]:
    """Return of how many genes each cell (N,) has a count of its own, of counts (N, G) with stand-ins among them."""
    n_detected: NDArray[np.int64] = np.count_nonzero(counts, axis=1)
    if stand_ins is not None:
        n_detected = n_detected - np.count_nonzero(counts[:, stand_ins.genes], axis=1)
    return n_detected


def ignore_stand_ins(output: EncoderOutput, counts: NDArray[np.float32], stand_ins: StandIns | None) -> EncoderOutput:
    """Take the stand-ins out of what is summed over the genes that a cell shows: how rare they are."""
    if stand_ins is None or output.rarity is None:
        return output
    theirs = (counts[:, stand_ins.genes] > 0).astype(np.float64) @ stand_ins.rarity  # whole numbers: exact
    return replace(output, rarity=(output.rarity - theirs).astype(np.float32))
