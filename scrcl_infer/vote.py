"""The vote of neighbours: types smoothed over the query's own embedding (docs/decisions/0008-neighbour-vote.md).

The answers of all cells are held back until the last has come: of each cell its type, its calibrated posterior and its
embedding as two-byte numbers stay in memory; the embedding as it is to be written waits in a temporary file.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.assign import best_and_margin
from scrcl_infer.blocks import RowBlock
from scrcl_infer.contract import LabelLevel, Manifest
from scrcl_infer.errors import InputError
from scrcl_infer.levels import compute_level_confidence
from scrcl_infer.neighbors import EXACT_CELLS, find_neighbors, round_rows
from scrcl_infer.result import AssignedBlock

logger = logging.getLogger(__name__)

NEIGHBORS = 15
"""Nearest cells among which the voters of a cell are, as many as in scanpy's neighbour graphs."""
CELLS_AT_ONCE = 4096
"""Cells counted at a time; the answer does not depend on it."""
Decided = tuple[RowBlock | None, AssignedBlock, NDArray[np.floating]]
"""A block's counts (None where nobody asks for them again), its answers, and its (N, T) type posteriors."""


def hold_vote(
    decided: Iterable[Decided],
    counts: Iterable[RowBlock] | None,
    manifest: Manifest,
    n_cells: int,
    *,
    note: Callable[[str, object], None],
) -> Iterator[Decided]:
    """Take all blocks in, let the cells vote, and yield the blocks again with what comes of it.

    Parameters
    ----------
    decided
        What each cell is on its own; the counts are let go.
    counts
        The same blocks' counts once more, to go with the answers.
    manifest
        Types and width of the embedding.
    n_cells
        Cells to come.
    note
        Told 'vote' and how many cells it changed.
    """
    n_types, dim = len(manifest.cell_types), manifest.encoder.dim
    with Ballot(n_cells, n_types=n_types, dim=dim, levels=manifest.levels) as ballot:
        for _, answers, posterior in decided:
            ballot.add(answers, posterior)
        logger.info("Vote of neighbours: seeking the %d nearest of %s cells", NEIGHBORS, f"{n_cells:,}")
        again = itertools.repeat(None) if counts is None else counts
        for (answers, posterior), block in zip(ballot.count(), again, strict=False):
            yield block, answers, posterior
        note("vote", {"n_neighbors": NEIGHBORS, "n_changed": ballot.n_changed})


class Ballot:
    """Takes answers block by block, and gives them again after the vote. A context manager.

    Parameters
    ----------
    n_cells
        Cells to come.
    n_types
        Types T of the model.
    dim
        Width D of the embedding.
    levels
        Coarser levels of the types.
    """

    def __init__(self, n_cells: int, *, n_types: int, dim: int, levels: Sequence[LabelLevel] = ()) -> None:
        self.n_changed = 0
        """Cells whose type the vote changed; known when all blocks were given again."""
        self._levels = levels
        self._rows = np.zeros((n_cells, dim), dtype=np.int16)
        self._posterior = np.zeros((n_cells, n_types), dtype=np.float32)
        self._cell_type = np.full(n_cells, -1, dtype=np.int32)
        self._has_counts = np.zeros(n_cells, dtype=bool)
        self._blocks: list[AssignedBlock] = []
        self._file = tempfile.TemporaryFile(prefix="scrcl-")  # noqa: SIM115 - closed when the context is left

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # a full disk: the error that led here is the one to tell
            self._file.close()

    def add(self, block: AssignedBlock, posterior: NDArray[np.floating]) -> None:
        """Hold the answers of the next cells.

        Parameters
        ----------
        block
            The answers of N cells.
        posterior
            (N, T) their calibrated type posteriors.

        Raises
        ------
        InputError
            The temporary folder is full.
        """
        rows = slice(block.start, block.start + len(block.cell_type))
        self._rows[rows] = round_rows(block.embedding)
        self._posterior[rows] = posterior
        self._cell_type[rows] = block.cell_type
        self._has_counts[rows] = block.population >= 0
        try:
            self._file.write(np.ascontiguousarray(block.embedding, dtype=np.float32).tobytes())
            self._file.flush()
        except OSError as error:
            msg = (
                f"The temporary folder {tempfile.gettempdir()} is full ({error.strerror}); the vote keeps the "
                "embedding there. Set TMPDIR to a folder with room, or leave out --vote."
            )
            raise InputError(msg) from error
        self._blocks.append(replace(block, embedding=np.empty((0, 0), dtype=np.float32)))

    def count(self) -> Iterator[tuple[AssignedBlock, NDArray[np.float32]]]:
        """Let the cells vote, and yield all blocks again with the types, confidences and margins that come of it.

        With each comes the (N, T) pooled posterior of its cells.
        """
        # Most files have no cell without counts, and then nothing needs to be copied.
        placed = slice(None) if self._has_counts.all() else np.flatnonzero(self._has_counts)
        self._posterior[placed] = vote(self._rows[placed], self._posterior[placed], self._cell_type[placed])
        self._file.seek(0)
        for block in self._blocks:
            n_cells, dim = len(block.cell_type), self._rows.shape[1]
            pooled = self._posterior[block.start : block.start + n_cells]
            confidence, margin = best_and_margin(pooled)
            decided = block.cell_type >= 0
            # Where its own type is as probable as any, a cell keeps it.
            keeps = pooled[np.arange(n_cells), block.cell_type] >= pooled.max(axis=1)
            cell_type = np.where(decided & ~keeps, pooled.argmax(axis=1), block.cell_type).astype(np.int32)
            self.n_changed += int((cell_type != block.cell_type).sum())
            of_levels = block.level_confidence
            if self._levels:
                summed = compute_level_confidence(pooled.astype(np.float64), np.maximum(cell_type, 0), self._levels)
                of_levels = np.where(decided[:, None], summed, of_levels).astype(np.float32)
            answers = replace(
                block,
                level_confidence=of_levels,
                cell_type=cell_type,
                confidence=np.where(decided, confidence, block.confidence).astype(np.float32),
                margin=np.where(decided, margin, block.margin).astype(np.float32),
                embedding=np.frombuffer(self._file.read(n_cells * dim * 4), dtype=np.float32).reshape(-1, dim),
            )
            yield answers, pooled


def vote(
    rows: NDArray[np.int16],
    posterior: NDArray[np.float32],
    cell_type: NDArray[np.int32],
    *,
    n_neighbors: int = NEIGHBORS,
    exact_cells: int = EXACT_CELLS,
) -> NDArray[np.float32]:
    r"""Pool each cell's posterior with those of its neighbours.

    .. math:: q_i \propto \sqrt{p_i \circ \bar p_i}, \quad \bar p_i = \text{mean of } p_j, \; j \in V_i \cup \{i\}

    the logarithmic pool, in equal parts, of the cell's own posterior and the mean of its voters. A cell j votes for i
    where each is among the nearest of the other, and j is not unknown. Cells without such neighbours, and unknown
    cells, keep their posterior.

    Parameters
    ----------
    rows
        (n, D) embedding as `round_rows` gives it.
    posterior
        (n, T) calibrated type posteriors; rows sum to 1.
    cell_type
        (n,) type of each cell, -1 is unknown.
    n_neighbors, exact_cells
        See `find_neighbors`.

    Returns
    -------
    NDArray
        (n, T) float32, rows sum to 1.
    """
    nearest = find_neighbors(rows, n_neighbors=n_neighbors, exact_cells=exact_cells)
    pooled = posterior.copy()
    decided = np.flatnonzero(cell_type >= 0)
    for start in range(0, len(decided), CELLS_AT_ONCE):
        cells = decided[start : start + CELLS_AT_ONCE]
        own = posterior[cells].astype(np.float64)
        total, n_voters = own.copy(), np.ones(len(cells))
        for rank in range(nearest.shape[1]):  # the nearest first: always the same order of additions
            voter = nearest[cells, rank]
            votes = (cell_type[voter] >= 0) & (nearest[voter] == cells[:, None]).any(axis=1)
            total += np.where(votes[:, None], posterior[voter], 0.0)
            n_voters += votes
        pool = np.sqrt(own * (total / n_voters[:, None]))
        alone = n_voters == 1
        pooled[cells] = np.where(alone[:, None], own, pool / pool.sum(axis=1, keepdims=True))
    return pooled
