"""The scRCL network: two views of the cells and their refinement by the gene-correlation structure.

Peng et al., AAAI 2026, arXiv 2512.10640, section "Method". Symbols: n cells, g genes, h hidden width, d refined width;
X^(s) = Â^s X is the input smoothed s steps over the cell graph, with s = (s₁, s₂) for the two views.

The views are the paper's. The refinement comes in two forms: the paper's `GeneConvolution`, and `GenePrograms`, in
which Z does not fall into a narrow cone.
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
    """X^(s₁), (n, g); for principal components (n, p)."""
    propagated: Tensor
    """Â X^(s₂), (n, g): the first graph convolution of view 2 with its weights still to come, Â (X W) = (Â X) W."""
    cells: CellGraph
    genes: SparseMatrix
    """Â_g (g, g), the normalised gene graph."""


class TeacherOutput(NamedTuple):
    """The embeddings of one pass."""

    emb_1: Tensor
    """E_1 (n, h), unit rows: the view of the MLP."""
    emb_2: Tensor
    """E_2 (n, h), unit rows: the view of the graph convolutions."""
    z_1: Tensor
    """Z_1 (n, d), unit rows: the first view refined."""
    z_2: Tensor
    """Z_2 (n, d), unit rows."""
    gene_embedding: Tensor
    """G (g, d)."""


class Views(nn.Module):
    r"""The two views of each cell.

    .. math::

        H_1 &= \mathrm{relu}(X^{(s_1)} W + b) \\
        H_2 &= φ(\mathrm{dropout}(φ(Â\, φ(Â X^{(s_2)} W_1 + b_1)\, W_2 + b_2))\, W_3 + b_3), \quad φ = LeakyReLU

    Parameters
    ----------
    n_inputs
        Columns of X.
    hidden
        h.
    dropout
        Probability of zeroing an entry, in training only.
    """

    def __init__(self, n_inputs: int, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.mlp = nn.Linear(n_inputs, hidden)
        self.gcn1 = nn.Linear(n_inputs, hidden)
        self.gcn2 = nn.Linear(hidden, hidden)
        self.gcn_out = nn.Linear(hidden, hidden)
        _start_glorot(self.gcn1, self.gcn2)  # as PyTorch Geometric starts its GCNConv

    def forward(self, inputs: TeacherInputs) -> tuple[Tensor, Tensor]:
        """Return H_1 and H_2, (n, h) each."""
        hidden_1 = functional.relu(self.mlp(inputs.smoothed))
        hidden = functional.leaky_relu(self.gcn1(inputs.propagated), NEGATIVE_SLOPE)  # (n, h)
        hidden = functional.leaky_relu(self.gcn2(inputs.cells.normalised @ hidden), NEGATIVE_SLOPE)
        hidden = functional.dropout(hidden, self.dropout, self.training)
        return hidden_1, functional.leaky_relu(self.gcn_out(hidden), NEGATIVE_SLOPE)


class GeneConvolution(nn.Module):
    r"""The paper's refinement.

    .. math::

        G = \mathrm{relu}(Â_g X^{(s_1)T} W_g + b_g), \qquad
        Z_v = \mathrm{unit\ rows}((\mathrm{dropout}(H_v) P + b_P)\, G)

    P is (h, g). The (n, g) product with it is never formed: P G (h, d) and b_P G (d,) are made first. W_g has one row
    per training cell, so the network serves these cells only.

    Parameters
    ----------
    n_cells, n_genes
        n and g.
    hidden, dim
        h and d.
    dropout
        As in `Views`.
    """

    def __init__(self, n_cells: int, n_genes: int, *, hidden: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.gene_gcn = nn.Linear(n_cells, dim)
        self.projector = nn.Linear(hidden, n_genes)
        _start_glorot(self.gene_gcn)

    def gene_embedding(self, inputs: TeacherInputs) -> Tensor:
        """Return G (g, d), non-negative."""
        messages = inputs.smoothed.T @ self.gene_gcn.weight.T  # (g, n) (n, d)
        return functional.relu(inputs.genes @ messages + self.gene_gcn.bias)

    def refine(self, hidden: Tensor, gene_embedding: Tensor) -> Tensor:
        """Return Z_v (n, d), unit rows."""
        weight = self.projector.weight.T @ gene_embedding  # P G: (h, g) (g, d)
        bias = self.projector.bias @ gene_embedding  # b_P G: (d,)
        dropped = functional.dropout(hidden, self.dropout, self.training)
        return functional.normalize(torch.addmm(bias, dropped, weight))


class GenePrograms(nn.Module):
    r"""A refinement whose Z keeps its rank: signed, centred gene programs over principal components.

    In the paper's form G is non-negative and its rows share a large mean, so that Z falls into a cone. Here genes are
    described by what they do along the principal components, averaged over their neighbours in the gene graph and
    centred; G is linear in that, and Z is centred over the cells before its rows are scaled:

    .. math::

        Q = \mathrm{centre}(Â_g\, V S), \qquad G = Q\, W_g, \qquad
        Z_v = \mathrm{unit\ rows}(\mathrm{centre}(\mathrm{dropout}(E_v)\, P\, G))

    V (g, p) are the loadings and S the components' standard deviations; Q is scaled to columns of unit length on
    average. P (h, g) starts at W^T V^T, the first view's own weights carried back to genes, so that Z starts as a view
    of expression. V S is the paper's X^T with the cells' singular vectors for W_g, so no weight belongs to a cell.

    Parameters
    ----------
    profiles
        Q (g, p), from `program_profiles`.
    projection
        Start of P, (h, g).
    dim
        d.
    dropout
        As in `Views`.
    """

    profiles: Tensor

    def __init__(self, profiles: Tensor, projection: Tensor, *, dim: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.register_buffer("profiles", profiles)
        self.programs = nn.Linear(profiles.shape[1], dim, bias=False)
        nn.init.xavier_uniform_(self.programs.weight)
        self.projection = nn.Parameter(projection.clone())

    def gene_embedding(self, inputs: TeacherInputs) -> Tensor:
        """Return G (g, d), its columns centred."""
        embedding: Tensor = self.programs(self.profiles)
        return embedding

    def refine(self, hidden: Tensor, gene_embedding: Tensor) -> Tensor:
        """Return Z_v (n, d), unit rows."""
        dropped = functional.dropout(functional.normalize(hidden), self.dropout, self.training)
        refined = dropped @ (self.projection @ gene_embedding)  # (n, h) ((h, g) (g, d))
        return functional.normalize(refined - refined.mean(0))


class Scrcl(nn.Module):
    """Two views of each cell and the refinement that they share.

    Parameters
    ----------
    views
        The two encoders.
    refinement
        `GeneConvolution` or `GenePrograms`.
    """

    def __init__(self, views: Views, refinement: GeneConvolution | GenePrograms) -> None:
        super().__init__()
        self.views = views
        self.refinement = refinement

    def forward(self, inputs: TeacherInputs) -> TeacherOutput:
        """Embed all n cells."""
        hidden_1, hidden_2 = self.views(inputs)
        gene_embedding = self.refinement.gene_embedding(inputs)
        return TeacherOutput(
            emb_1=functional.normalize(hidden_1),
            emb_2=functional.normalize(hidden_2),
            z_1=self.refinement.refine(hidden_1, gene_embedding),
            z_2=self.refinement.refine(hidden_2, gene_embedding),
            gene_embedding=gene_embedding,
        )


def paper_model(n_cells: int, n_genes: int, *, hidden: int, dim: int, dropout: float) -> Scrcl:
    """Return the paper's network, untrained, for n cells and g genes."""
    views = Views(n_genes, hidden=hidden, dropout=dropout)
    return Scrcl(views, GeneConvolution(n_cells, n_genes, hidden=hidden, dim=dim, dropout=dropout))


def program_model(loadings: Tensor, profiles: Tensor, *, hidden: int, dim: int, dropout: float) -> Scrcl:
    """Return the network over principal components, untrained, from loadings V (g, p) and profiles Q (g, p)."""
    views = Views(loadings.shape[1], hidden=hidden, dropout=dropout)
    _start_glorot(views.mlp, views.gcn1, views.gcn2, views.gcn_out)
    projection = views.mlp.weight.detach() @ loadings.T  # (h, p) (p, g)
    return Scrcl(views, GenePrograms(profiles, projection, dim=dim, dropout=dropout))


def program_profiles(loadings: Tensor, spread: Tensor, genes: SparseMatrix) -> Tensor:
    """Return Q (g, p) from loadings (g, p), the components' standard deviations (p,), and Â_g."""
    profiles = genes @ (loadings * spread)
    profiles = profiles - profiles.mean(0)
    scaled: Tensor = profiles / profiles.norm(dim=0).mean()
    return scaled


def _start_glorot(*linears: nn.Linear) -> None:
    for linear in linears:
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
