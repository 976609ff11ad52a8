r"""The two alignment losses with their gradients, worked through in blocks that stay in the processor's cache.

Autograd alone would keep a dozen (n, h) arrays for the way back, or compute every block anew from graph products on.
Written out, the gradients need two products with the graph more than the values do, one (n, h) array kept between
forward and backward, and a few block buffers that are reused, so that no step allocates (and the system need not clear)
memory again and again.

Symbols as in `objective`, and besides: x_v = h P_v = exp(l_v), the mass relative to uniform; S_2 and L_2 the sums of
x_2 and l_2 over all cells. Every loss depends on E_v through l_v and x_v alone, and both Functions return for it

.. math:: \frac{\partial L}{\partial E_v} = \frac{1}{t} (G_v - P_v ∘ \mathrm{rowsum}(G_v)), \qquad
          G_v = \frac{\partial L}{\partial l_v} + x_v ∘ \frac{\partial L}{\partial x_v}
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scrcl_train.layers import CellGraph

ROW_BLOCK_ELEMENTS = 2**18
"""Entries of a block of whole rows on the CPU: 1 MiB in float32, so that the buffers stay in a core's own cache."""
COLUMN_BLOCK_ELEMENTS = 6 * 2**20
"""Entries of an (n, block) array on the CPU: 24 MiB in float32, from which rows are gathered along the graph's edges.
Half of it saves the system's clearing of memory for few cells, but makes the stretches read per edge short for many."""
DEVICE_BLOCK_ELEMENTS = 2**24
"""Entries of either block on an accelerator, where starting a kernel costs more than memory does."""
CACHE_LINE_COLUMNS = 16
"""float32 numbers in 64 bytes: blocks are a multiple as wide."""


class DistributionAlignment(torch.autograd.Function):
    r"""L_EDA of `objective.embedding_distribution_alignment`, over blocks of cells.

    With r_v the share of each cell in the softmax over all entries, KL_{12} and KL_{21} that softmax's divergences, and
    w_v = r_v + 1/(2n):

    .. math::

        t h \frac{\partial L}{\partial E_1} = x_1 ∘ \left( w_1 (l_1 - l_2) + w_1
            + r_1 \left( \log \frac{r_1}{r_2} - KL_{12} \right) - \frac{KL(P_1 \| P_2)}{2n} \right) - w_2 x_2

    and the same for E_2 with the views exchanged.
    """

    @staticmethod
    def forward(ctx: Any, emb_1: Tensor, emb_2: Tensor, temperature: float) -> Tensor:  # noqa: ANN401 - torch's ctx
        """Return the scalar loss."""
        n_cells, width = emb_1.shape
        shift_1, shift_2 = _shift(emb_1, temperature), _shift(emb_2, temperature)
        kl_12, kl_21 = emb_1.new_empty(n_cells, 1), emb_1.new_empty(n_cells, 1)
        for rows, (l_1, x_1, l_2, x_2) in _row_blocks(emb_1, buffers=4):
            _relative_log_and_mass(emb_1[rows], shift_1[rows], temperature, log=l_1, mass=x_1)
            _relative_log_and_mass(emb_2[rows], shift_2[rows], temperature, log=l_2, mass=x_2)
            change = l_1.sub_(l_2)
            kl_12[rows] = _row_dots(x_1, change, into=x_1) / width
            kl_21[rows] = _row_dots(x_2, change, into=x_2) / -width
        # The shift is log h minus the row's log of its sum of exponentials, whose softmax is the row's share.
        log_1, log_2 = (-shift_1).log_softmax(0), (-shift_2).log_softmax(0)
        ctx.save_for_backward(emb_1, emb_2, shift_1, shift_2, kl_12, kl_21)
        ctx.temperature = temperature
        over_all = ((log_1.exp() - log_2.exp()) * (log_1 - log_2) + log_1.exp() * kl_12 + log_2.exp() * kl_21).sum()
        within_cells = (kl_12 + kl_21).sum() / (2 * n_cells)
        return over_all + within_cells

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None]:  # noqa: ANN401
        """Return both gradients."""
        emb_1, emb_2, shift_1, shift_2, kl_12, kl_21 = ctx.saved_tensors
        temperature, half = ctx.temperature, 1 / (2 * len(emb_1))
        log_1, log_2 = (-shift_1).log_softmax(0), (-shift_2).log_softmax(0)
        share_1, share_2 = log_1.exp(), log_2.exp()
        surprise_1, surprise_2 = log_1 - log_2, log_2 - log_1
        scale = upstream / (temperature * emb_1.shape[1])
        w_1, w_2 = (share_1 + half) * scale, (share_2 + half) * scale
        total_12, total_21 = (share_1 * (surprise_1 + kl_12)).sum(), (share_2 * (surprise_2 + kl_21)).sum()
        level_1 = w_1 + (share_1 * (surprise_1 - total_12) - half * kl_12) * scale
        level_2 = w_2 + (share_2 * (surprise_2 - total_21) - half * kl_21) * scale
        grad_1, grad_2 = torch.empty_like(emb_1), torch.empty_like(emb_2)
        for rows, (l_1, x_1, l_2, x_2) in _row_blocks(emb_1, buffers=4):
            _relative_log_and_mass(emb_1[rows], shift_1[rows], temperature, log=l_1, mass=x_1)
            _relative_log_and_mass(emb_2[rows], shift_2[rows], temperature, log=l_2, mass=x_2)
            change, work = l_1.sub_(l_2), l_2
            torch.addcmul(level_1[rows], w_1[rows], change, out=work).mul_(x_1)
            torch.addcmul(work, w_2[rows], x_2, value=-1, out=grad_1[rows])
            torch.addcmul(level_2[rows], w_2[rows], change, value=-1, out=work).mul_(x_2)
            torch.addcmul(work, w_1[rows], x_1, value=-1, out=grad_2[rows])
        return grad_1, grad_2, None


class NeighbourhoodAlignment(torch.autograd.Function):
    r"""L_NCA of `objective.neighbourhood_contrastive_alignment`, over blocks of columns.

    With near_i and far_i the sums of D_ij over the neighbours and over all other cells, c_i = (n - 1) / (n δ_i),
    a_i = c_i / far_i, b_i = -c_i near_i / far_i^2 and e = Ãa + Σ_i b_i:

    .. math::

        h G_1 &= a \left( δ x_1 - Ãx_2 + x_1 ∘ (δ l_1 - Ãl_2) \right)
                 + b \left( (n-1) x_1 - S_2 + x_2 + x_1 ∘ ((n-1) l_1 - L_2 + l_2) \right) \\
        h G_2 &= b x_1 - Ã(a x_1) - \sum_i b_i x_{1i}
                 + x_2 ∘ \left( (e - b) (l_2 + 1) + b l_1 - Ã(a l_1) - \sum_i b_i l_{1i} \right)

    The first bracket does not depend on a and b: forward keeps it, so that the graph products are not taken twice.
    """

    @staticmethod
    def forward(ctx: Any, emb_1: Tensor, emb_2: Tensor, graph: CellGraph, temperature: float) -> Tensor:  # noqa: ANN401
        """Return the scalar loss."""
        n_cells, width = emb_1.shape
        shift_1, shift_2 = _shift(emb_1, temperature), _shift(emb_2, temperature)
        near, far, own, eta_2 = torch.zeros(4, n_cells, 1, dtype=emb_1.dtype, device=emb_1.device)
        log_sum, mass_sum = torch.empty(2, width, dtype=emb_1.dtype, device=emb_1.device)
        bracket = torch.empty_like(emb_1) if any(ctx.needs_input_grad) else None
        for columns, (l_1, x_1, l_2, x_2, work) in _column_blocks(emb_1, buffers=5):
            _relative_log_and_mass(emb_1[:, columns], shift_1, temperature, log=l_1, mass=x_1)
            _relative_log_and_mass(emb_2[:, columns], shift_2, temperature, log=l_2, mass=x_2)
            log_sum[columns], mass_sum[columns] = l_2.sum(0), x_2.sum(0)
            torch.mul(l_1, graph.degree, out=work).sub_(graph.looped @ l_2).mul_(x_1)
            near += work.sum(1, keepdim=True)
            mass_near = graph.looped @ x_2
            if bracket is not None:
                torch.addcmul(work.sub_(mass_near), graph.degree, x_1, out=bracket[:, columns])
            near -= _row_dots(l_1, mass_near, into=work)
            # One product alive at a time: two freed together would be given back to the system and cleared anew.
            del mass_near
            far += n_cells * _row_dots(x_1, l_1, into=work)
            far -= (x_1 @ log_sum[columns] + l_1 @ mass_sum[columns])[:, None]
            eta_2 += _row_dots(x_2, l_2, into=work)
            own += _row_dots(x_1.sub_(x_2), l_1.sub_(l_2), into=work)
        near = (near + graph.looped @ eta_2) / width
        far = (far + eta_2.sum() - own) / width
        ctx.save_for_backward(emb_1, emb_2, shift_1, shift_2, near, far, log_sum, mass_sum, bracket)
        ctx.graph, ctx.temperature = graph, temperature
        loss: Tensor = ((near / graph.degree) / (far / (n_cells - 1))).mean()
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, None, None]:  # noqa: ANN401
        """Return both gradients."""
        emb_1, emb_2, shift_1, shift_2, near, far, log_sum, mass_sum, bracket = ctx.saved_tensors
        looped, temperature, others = ctx.graph.looped, ctx.temperature, len(emb_1) - 1
        a = upstream * others / (temperature * emb_1.numel() * ctx.graph.degree * far)
        b = -a * near / far
        e = looped @ a + b.sum()
        grad_1, grad_2 = torch.empty_like(emb_1), torch.empty_like(emb_2)
        sum_1, sum_2 = torch.zeros_like(a), torch.zeros_like(a)
        for columns, (l_1, x_1, l_2, x_2, work) in _column_blocks(emb_1, buffers=5):
            _relative_log_and_mass(emb_1[:, columns], shift_1, temperature, log=l_1, mass=x_1)
            _relative_log_and_mass(emb_2[:, columns], shift_2, temperature, log=l_2, mass=x_2)
            torch.add(l_2, l_1, alpha=others, out=work).sub_(log_sum[columns] - others).mul_(x_1)
            work.add_(x_2).sub_(mass_sum[columns]).mul_(b).addcmul_(a, bracket[:, columns])
            sum_1 += work.sum(1, keepdim=True)
            grad_1[:, columns] = work
            torch.mul(b, l_1, out=work).sub_(b.T @ l_1).sub_(looped @ l_1.mul_(a))
            work.addcmul_(e - b, l_2.add_(1)).mul_(x_2)
            work.addcmul_(b, x_1).sub_(b.T @ x_1).sub_(looped @ x_1.mul_(a))
            sum_2 += work.sum(1, keepdim=True)
            grad_2[:, columns] = work
        _through_softmax(grad_1, sum_1, emb_1, shift_1, temperature)
        _through_softmax(grad_2, sum_2, emb_2, shift_2, temperature)
        return grad_1, grad_2, None, None


def _shift(emb: Tensor, temperature: float) -> Tensor:
    """Return (n, 1): what turns E / t into l, the logarithm of its row softmax relative to uniform."""
    shift = emb.new_empty(len(emb), 1)
    for rows, (logits,) in _row_blocks(emb, buffers=1):
        shift[rows] = torch.div(emb[rows], temperature, out=logits).logsumexp(1, keepdim=True)
    return math.log(emb.shape[1]) - shift


def _relative_log_and_mass(emb: Tensor, shift: Tensor, temperature: float, *, log: Tensor, mass: Tensor) -> None:
    """Fill `log` with l = E / t + shift and `mass` with x = exp(l)."""
    torch.add(shift, emb, alpha=1 / temperature, out=log)
    torch.exp(log, out=mass)


def _row_dots(left: Tensor, right: Tensor, *, into: Tensor) -> Tensor:
    """Return (n, 1): the dot product of each pair of rows. `into` is overwritten."""
    return torch.mul(left, right, out=into).sum(1, keepdim=True)


def _through_softmax(grad: Tensor, row_sums: Tensor, emb: Tensor, shift: Tensor, temperature: float) -> None:
    """Subtract P ∘ rowsum(G) from G in place."""
    shares = row_sums / emb.shape[1]
    for rows, (log,) in _row_blocks(emb, buffers=1):
        _relative_log_and_mass(emb[rows], shift[rows], temperature, log=log, mass=log)
        grad[rows].addcmul_(log, shares[rows], value=-1)


def _row_blocks(emb: Tensor, *, buffers: int) -> Iterator[tuple[slice, list[Tensor]]]:
    """Yield slices of rows, and with each the same buffers in its shape."""
    n_rows, width = emb.shape
    elements = ROW_BLOCK_ELEMENTS if emb.device.type == "cpu" else DEVICE_BLOCK_ELEMENTS
    step = min(n_rows, max(1, elements // width))
    storage = [emb.new_empty(step, width) for _ in range(buffers)]
    for start in range(0, n_rows, step):
        stop = min(start + step, n_rows)
        yield slice(start, stop), [buffer[: stop - start] for buffer in storage]


def _column_blocks(emb: Tensor, *, buffers: int) -> Iterator[tuple[slice, list[Tensor]]]:
    """Yield slices of columns, and with each the same buffers in its shape, contiguous."""
    n_rows, width = emb.shape
    elements = COLUMN_BLOCK_ELEMENTS if emb.device.type == "cpu" else DEVICE_BLOCK_ELEMENTS
    step = max(1, elements // n_rows)
    step = min(width, step - step % CACHE_LINE_COLUMNS if step > CACHE_LINE_COLUMNS else step)
    storage = emb.new_empty(buffers, n_rows * step)
    for start in range(0, width, step):
        stop = min(start + step, width)
        yield slice(start, stop), [buffer[: n_rows * (stop - start)].view(n_rows, -1) for buffer in storage]
