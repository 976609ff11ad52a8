"""Cells as the student sees them while it learns: at another depth, and with some of the genes missing.

Stored counts alone are touched, since a zero stays a zero: drawing for a block of 256 cells takes a few milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from scrcl_train.student_input import MIN_LIBRARY


@dataclass(frozen=True)
class AugmentConfig:
    """How far a cell is changed."""

    thin: bool = True
    """Draw new counts at another depth; False for values that are no counts."""
    min_kept: float = 0.1
    """Counts are thinned to a share drawn log-uniformly from [min_kept, 1]."""
    max_gene_dropout: float = 0.9
    """A cell loses a share of its genes drawn from [0, max_gene_dropout]."""
    shrink_library: float = 0.5
    """Chance that the library size shrinks with the genes: the query's file holds few other genes either."""


class CellSampler:
    """Dense blocks of chosen cells from a sparse matrix, augmented on the way.

    Parameters
    ----------
    counts
        (n, G) raw counts.
    library_size
        (n,) total counts over all genes.
    device
        Where the counts lie and the blocks are made.
    """

    def __init__(self, counts: sp.csr_matrix, library_size: NDArray[np.float32], device: torch.device) -> None:
        # Two stored entries of one gene would overwrite each other in the dense block; the caller's matrix stays as is.
        counts = counts.copy() if not counts.has_canonical_format else counts
        counts.sum_duplicates()
        self.n_cells, self.n_genes = counts.shape
        # MPS has no Poisson sampler: blocks are made on the CPU there and moved.
        self.home = torch.device("cpu") if device.type == "mps" else device
        self.device = device
        self.values = torch.from_numpy(counts.data.astype(np.float32)).to(self.home)
        self.genes = torch.from_numpy(counts.indices.astype(np.int64)).to(self.home)
        self.starts = torch.from_numpy(counts.indptr.astype(np.int64)).to(self.home)
        self.library = torch.from_numpy(np.asarray(library_size, dtype=np.float32).reshape(-1)).to(self.home)
        rows = np.repeat(np.arange(self.n_cells), np.diff(counts.indptr))
        inside = np.bincount(rows, weights=counts.data, minlength=self.n_cells).astype(np.float32)
        self.outside = (self.library - torch.from_numpy(inside).to(self.home)).clamp(min=0)

    def sample(self, rows: Tensor, config: AugmentConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return counts (N, G) and library sizes (N, 1) of the cells `rows` (N,), thinned and with genes dropped.

        Thinning draws Poisson(p x), one p for a cell; its library size is thinned alike. What is not thinned keeps its
        library size, which is no sum where values were logarithms of another base or total than they are taken for.
        """
        n = rows.numel()
        lengths = self.starts[rows + 1] - self.starts[rows]  # (N,)
        cell = torch.repeat_interleave(torch.arange(n, device=self.home), lengths)  # (nnz,)
        before = lengths.cumsum(0) - lengths
        entry = torch.arange(cell.numel(), device=self.home) + (self.starts[rows] - before)[cell]
        values, library = self.values[entry], self.library[rows]
        if config.thin:
            kept = config.min_kept ** self._uniform(n, generator)
            values = torch.poisson(values * kept[cell], generator=generator)
            library = self._sum(values, cell, n) + torch.poisson(self.outside[rows] * kept, generator=generator)
        inside = self._sum(values, cell, n)
        lost = config.max_gene_dropout * self._uniform(n, generator)
        values = values * (self._uniform(values.numel(), generator) >= lost[cell])
        remaining = self._sum(values, cell, n) / inside.clamp(min=MIN_LIBRARY)
        shrinks = self._uniform(n, generator) < config.shrink_library
        library = torch.where(shrinks, library * remaining, library)
        block = torch.zeros(n * self.n_genes, device=self.home)
        block[cell * self.n_genes + self.genes[entry]] = values
        return block.view(n, self.n_genes).to(self.device), library.view(n, 1).to(self.device)

    def _sum(self, values: Tensor, cell: Tensor, n: int) -> Tensor:
        return torch.zeros(n, device=self.home).index_add_(0, cell, values)

    def _uniform(self, n: int, generator: torch.Generator) -> Tensor:
        return torch.rand(n, device=self.home, generator=generator)
