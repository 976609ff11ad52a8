"""The scRCL network: two views of the cells and their refinement by the gene-correlation structure.

Peng et al., AAAI 2026, arXiv 2512.10640, section "Method". Symbols: n cells, g genes, h hidden width, d refined width;
X^(s) = Â^s X is the input smoothed s steps over the cell graph, with s = (s₁, s₂) for the two views.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from scrcl_train.layers import CellGraph, SparseMatrix

NEGATIVE_SLOPE = 0.01
"""Of LeakyReLU in the graph view."""


class TeacherInputs(NamedTuple):
    """All that the network sees, on one device; none of it changes during training."""

    smoothed: Tensor
    """X^(s₁), (n, g)."""
    propagated: Tensor
    """Â X^(s₂), (n, g): the first graph convolution of view 2 with its weights still to come, Â (X W) = (Â X) W."""
    cells: CellGraph
    genes: SparseMatrix
    """Â_g (g, g), the normalised directed gene graph."""


class TeacherOutput(NamedTuple):
    """The embeddings of one pass."""

    emb_1: Tensor
    """E_1 (n, h), unit rows: the view of the MLP."""
    emb_2: Tensor
    """E_2 (n, h), unit rows: the view of the graph convolutions."""
    z_1: Tensor
    """Z_1 (n, d), unit rows: E_1's layer refined."""
    z_2: Tensor
    """Z_2 (n, d), unit rows."""
    gene_embedding: Tensor
    """G (g, d), non-negative."""


class Scrcl(nn.Module):
    r"""Two views of each cell, and the gene refinement that they share.

    .. math::

        H_1 &= \mathrm{relu}(X^{(s_1)} W + b) \\
        H_2 &= φ(\mathrm{dropout}(φ(Â\, φ(Â X^{(s_2)} W_1 + b_1)\, W_2 + b_2))\, W_3 + b_3), \quad φ = LeakyReLU \\
        G &= \mathrm{relu}(Â_g X^{(s_1)T} W_g + b_g) \\
        E_v &= \mathrm{unit\ rows}(H_v), \qquad Z_v = \mathrm{unit\ rows}((\mathrm{dropout}(H_v) P + b_P)\, G)

    P is (h, g). The (n, g) product with it is never formed: P G (h, d) and b_P G (d,) are made first.

    Parameters
    ----------
    n_cells, n_genes
        n and g. W_g has one row per training cell, so the network serves these cells only.
    hidden
        h.
    dim
        d.
    dropout
        Probability of zeroing an entry, in training only.
    """

    def __init__(self, n_cells: int, n_genes: int, *, hidden: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.mlp = nn.Linear(n_genes, hidden)
        self.gcn1 = nn.Linear(n_genes, hidden)
        self.gcn2 = nn.Linear(hidden, hidden)
        self.gcn_out = nn.Linear(hidden, hidden)
        self.gene_gcn = nn.Linear(n_cells, dim)
        self.projector = nn.Linear(hidden, n_genes)
        for convolution in (self.gcn1, self.gcn2, self.gene_gcn):  # as PyTorch Geometric starts its GCNConv
            nn.init.xavier_uniform_(convolution.weight)
            nn.init.zeros_(convolution.bias)

    def forward(self, inputs: TeacherInputs) -> TeacherOutput:
        """Embed all n cells."""
        hidden_1 = functional.relu(self.mlp(inputs.smoothed))  # (n, h)
        hidden_2 = self._graph_view(inputs)  # (n, h)
        gene_embedding = self._gene_embedding(inputs)  # (g, d)
        return TeacherOutput(
            emb_1=functional.normalize(hidden_1),
            emb_2=functional.normalize(hidden_2),
            z_1=self._refine(hidden_1, gene_embedding),
            z_2=self._refine(hidden_2, gene_embedding),
            gene_embedding=gene_embedding,
        )

    def _graph_view(self, inputs: TeacherInputs) -> Tensor:
        hidden = functional.leaky_relu(self.gcn1(inputs.propagated), NEGATIVE_SLOPE)  # (n, h)
        hidden = functional.leaky_relu(self.gcn2(inputs.cells.normalised @ hidden), NEGATIVE_SLOPE)
        return functional.leaky_relu(self.gcn_out(self._drop(hidden)), NEGATIVE_SLOPE)

    def _gene_embedding(self, inputs: TeacherInputs) -> Tensor:
        messages = inputs.smoothed.T @ self.gene_gcn.weight.T  # (g, n) (n, d)
        return functional.relu(inputs.genes @ messages + self.gene_gcn.bias)

    def _refine(self, hidden: Tensor, gene_embedding: Tensor) -> Tensor:
        weight = self.projector.weight.T @ gene_embedding  # P G: (h, g) (g, d)
        bias = self.projector.bias @ gene_embedding  # b_P G: (d,)
        return functional.normalize(torch.addmm(bias, self._drop(hidden), weight))

    def _drop(self, hidden: Tensor) -> Tensor:
        return functional.dropout(hidden, self.dropout, self.training)
