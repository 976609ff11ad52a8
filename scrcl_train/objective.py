"""The three losses of scRCL, in time and memory linear in the number of cells.

Peng et al., "Refinement Contrastive Learning of Cell-Gene Associations for Unsupervised Cell Type Identification",
AAAI 2026, arXiv 2512.10640. Symbols: n cells, h columns of the embeddings E_1, E_2 (unit rows), d columns of Z_1, Z_2
(unit rows), A the symmetric 0/1 cell graph without loops, Ã = A + I, δ_i = Σ_j Ã_ij, t the temperature,
P_v = row softmax of E_v / t.

The authors' code holds several dense n x n matrices. None is needed, because every double sum below either factorises
or runs over the edges of the graph alone. The two alignment losses, whose rows are h wide, have their gradients written
out in `alignment` and are worked through in blocks: besides the embeddings and their gradients, only one more (n, h)
array and a few small ones are alive.

All log probabilities are taken relative to the uniform distribution, l_v = log(h P_v). No loss changes, since they only
ever enter as differences, but float32 keeps its digits: near the uniform distribution log P is about -log h while the
divergences are a thousand times smaller.
"""

from __future__ import annotations

from torch import Tensor

from scrcl_infer.errors import TrainingError
from scrcl_train.alignment import DistributionAlignment, NeighbourhoodAlignment
from scrcl_train.layers import CellGraph


def embedding_distribution_alignment(emb_1: Tensor, emb_2: Tensor, *, temperature: float) -> Tensor:
    r"""Embedding distribution alignment: both views spread their mass alike, over all entries and within each cell.

    .. math::

        L_{EDA} = J(\mathrm{softmax}(E_1/t), \mathrm{softmax}(E_2/t)) + \frac{1}{2n} \sum_i J(P_{1i}, P_{2i}), \qquad
        J(p, q) = KL(p \| q) + KL(q \| p)

    The first softmax runs over all n h entries. With r_v the mass that it gives to each cell, the chain rule of the
    divergence turns that global term into row sums:

    .. math::

        J = \sum_i (r_{1i} - r_{2i}) (\log r_{1i} - \log r_{2i})
            + \sum_i r_{1i} KL(P_{1i} \| P_{2i}) + r_{2i} KL(P_{2i} \| P_{1i})

    Parameters
    ----------
    emb_1, emb_2
        (n, h) embeddings of the two views, unit rows.
    temperature
        t, above 0.

    Returns
    -------
    Tensor
        Scalar, at least 0.

    Raises
    ------
    TrainingError
        The shapes differ, or there are fewer than two cells.
    """
    _check_pair(emb_1, emb_2)
    loss: Tensor = DistributionAlignment.apply(emb_1, emb_2, temperature)  # type: ignore[no-untyped-call]
    return loss


def neighbourhood_contrastive_alignment(
    emb_1: Tensor, emb_2: Tensor, graph: CellGraph, *, temperature: float
) -> Tensor:
    r"""Neighbourhood contrastive alignment: a cell agrees with its neighbours' other view more than with all cells'.

    .. math::

        D_{ij} = KL(P_{1i} \| P_{2j}) + KL(P_{2j} \| P_{1i}), \qquad
        L_{NCA} = \frac{1}{n} \sum_i \frac{\frac{1}{δ_i} \sum_j Ã_{ij} D_{ij}}{\frac{1}{n-1} \sum_{j \ne i} D_{ij}}

    With η_v the row sums of P_v ∘ l_v, D_ij = η_1i + η_2j - P_1i·l_2j - l_1i·P_2j, and therefore

    .. math::

        \sum_j D_{ij} &= n η_{1i} - P_{1i} \cdot \sum_j l_{2j} + \sum_j η_{2j} - l_{1i} \cdot \sum_j P_{2j} \\
        \sum_j Ã_{ij} D_{ij} &= δ_i η_{1i} - P_{1i} \cdot (Ã l_2)_i + (Ã η_2)_i - l_{1i} \cdot (Ã P_2)_i

    Parameters
    ----------
    emb_1, emb_2
        (n, h) embeddings of the two views, unit rows.
    graph
        The cell graph of the same n cells.
    temperature
        t, above 0.

    Returns
    -------
    Tensor
        Scalar; 1 where neighbours are no closer than other cells, 0 where they agree fully.

    Raises
    ------
    TrainingError
        The shapes differ, there are fewer than two cells, or the graph has another number of cells.
    """
    _check_pair(emb_1, emb_2, graph)
    loss: Tensor = NeighbourhoodAlignment.apply(emb_1, emb_2, graph, temperature)  # type: ignore[no-untyped-call]
    return loss


def cross_view_consistency(z_1: Tensor, z_2: Tensor, graph: CellGraph) -> Tensor:
    r"""Cross-view consistency: similarities across the refined views reproduce the cell graph.

    .. math::

        L_{CVC} = \frac{1}{n^2} \| Z_1 Z_2^T - Ã \|_F^2
                = \frac{1}{n^2} \left( \langle Z_1^T Z_1, Z_2^T Z_2 \rangle
                  - 2 \sum_{(i,j) \in Ã} z_{1i} \cdot z_{2j} + nnz(Ã) \right)

    Parameters
    ----------
    z_1, z_2
        (n, d) refined embeddings of the two views, unit rows.
    graph
        The cell graph of the same n cells.

    Returns
    -------
    Tensor
        Scalar, at least 0 up to rounding.

    Raises
    ------
    TrainingError
        The shapes differ, there are fewer than two cells, or the graph has another number of cells.
    """
    _check_pair(z_1, z_2, graph)
    everywhere = ((z_1.T @ z_1) * (z_2.T @ z_2)).sum()
    on_edges = (z_1 * (graph.looped @ z_2)).sum()
    # Divided before they are added: n^2 itself leaves float32's whole numbers at 4,096 cells.
    scale = 1.0 / len(z_1) ** 2
    return everywhere * scale - on_edges * (2 * scale) + graph.looped.n_stored * scale


def balanced_consistency(z_1: Tensor, z_2: Tensor, graph: CellGraph) -> Tensor:
    r"""Cross-view consistency in which neighbours weigh as much as all other pairs together.

    Written out, the paper's loss is :math:`(z_{1i} \cdot z_{2j})^2 - 2 Ã_{ij} z_{1i} \cdot z_{2j}` averaged over
    all n^2 pairs, of which nearly all are no neighbours: they drown the graph. Here each of the two terms is an average
    over its own pairs, and the first carries the d dimensions over which unit rows can spread (the spectral contrastive
    loss of HaoChen et al., NeurIPS 2021, arXiv 2106.04156, across views):

    .. math::

        L_{BC} = \frac{d}{n^2} \sum_{ij} (z_{1i} \cdot z_{2j})^2
                 - \frac{2}{n} \sum_i \frac{1}{δ_i} \sum_j Ã_{ij} z_{1i} \cdot z_{2j},
        \qquad \sum_{ij} (z_{1i} \cdot z_{2j})^2 = \langle Z_1^T Z_1, Z_2^T Z_2 \rangle

    Parameters
    ----------
    z_1, z_2
        (n, d) refined embeddings of the two views, unit rows.
    graph
        The cell graph of the same n cells.

    Returns
    -------
    Tensor
        Scalar, at least -2.

    Raises
    ------
    TrainingError
        The shapes differ, there are fewer than two cells, or the graph has another number of cells.
    """
    _check_pair(z_1, z_2, graph)
    n_cells, dim = z_1.shape
    everywhere = ((z_1.T @ z_1 / n_cells) * (z_2.T @ z_2 / n_cells)).sum()
    with_neighbours = (z_1 * (graph.looped @ z_2)).sum(1) / graph.degree[:, 0]
    return dim * everywhere - 2 * with_neighbours.mean()


def _check_pair(view_1: Tensor, view_2: Tensor, graph: CellGraph | None = None) -> None:
    if view_1.ndim != 2 or view_1.shape != view_2.shape or len(view_1) < 2:
        msg = (
            f"The two views must be matrices of one shape with at least two cells; found {tuple(view_1.shape)} and "
            f"{tuple(view_2.shape)}. Take both from the same model."
        )
        raise TrainingError(msg)
    if graph is not None and graph.n_cells != len(view_1):
        msg = f"The graph has {graph.n_cells} cells, the views have {len(view_1)}. Build the graph from the same cells."
        raise TrainingError(msg)
