"""Constant sparse matrices that dense tensors are multiplied by, forward and backward, on CPU, CUDA and MPS.

Graphs are data, not parameters, so a product needs a gradient for its dense side only: the same product with the
transposed matrix, which for the symmetric cell graph is the matrix itself. torch's own sparse autograd would build that
transpose anew in every step.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from scrcl_infer.errors import TrainingError
from scrcl_train.graphs import add_loops, gcn_normalise

EDGE_BLOCK_ELEMENTS = 2**24
"""Entries gathered at once where there is no sparse kernel (MPS): 64 MiB in float32."""


class SparseMatrix:
    """A constant sparse matrix (m, n) on a device; `matrix @ dense` is differentiable in the dense side.

    Parameters
    ----------
    matrix
        (m, n) CSR matrix.
    symmetric
        The matrix equals its transpose, which then is not stored a second time.
    device
        Where the products run.
    dtype
        Floating type of the values.
    """

    def __init__(
        self,
        matrix: sp.csr_matrix,
        *,
        symmetric: bool,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        device = torch.device(device)
        self.shape: tuple[int, int] = (int(matrix.shape[0]), int(matrix.shape[1]))
        self.n_stored = int(matrix.nnz)
        self._forward = _place(matrix, device, dtype)
        self._backward = self._forward if symmetric else _place(matrix.T.tocsr(), device, dtype)

    def __matmul__(self, dense: Tensor) -> Tensor:
        """Multiply by `dense` (n, k); returns (m, k).

        Raises
        ------
        TrainingError
            `dense` does not have n rows.
        """
        if dense.ndim != 2 or len(dense) != self.shape[1]:
            msg = (
                f"A sparse matrix {self.shape} cannot be multiplied by {tuple(dense.shape)}: "
                f"expected {self.shape[1]} rows. Take both from the same cells or genes."
            )
            raise TrainingError(msg)
        product: Tensor = _Product.apply(dense, self)  # type: ignore[no-untyped-call]
        return product


@dataclass(frozen=True)
class CellGraph:
    """The cell graph as the model and the objective use it."""

    looped: SparseMatrix
    """Ã = A + I, (n, n), values 1."""
    normalised: SparseMatrix
    """Â = D^-1/2 Ã D^-1/2, (n, n)."""
    degree: Tensor
    """δ, (n, 1): neighbours of each cell, itself included."""

    @property
    def n_cells(self) -> int:
        """Cells n."""
        return self.looped.shape[0]

    @classmethod
    def from_adjacency(
        cls, adjacency: sp.csr_matrix, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> CellGraph:
        """Place a symmetric 0/1 graph without loops, (n, n), on a device."""
        looped = add_loops(adjacency)
        degree = torch.from_numpy(np.asarray(looped.sum(axis=1), dtype=np.float64).reshape(-1, 1))
        return cls(
            looped=SparseMatrix(looped, symmetric=True, device=device, dtype=dtype),
            normalised=SparseMatrix(gcn_normalise(looped), symmetric=True, device=device, dtype=dtype),
            degree=degree.to(dtype).to(device),
        )


class _Product(torch.autograd.Function):
    """Sparse times dense, with the stored transpose for the gradient of the dense side."""

    @staticmethod
    def forward(ctx: Any, dense: Tensor, matrix: SparseMatrix) -> Tensor:  # noqa: ANN401 - torch leaves ctx untyped
        ctx.matrix = matrix
        return matrix._forward.times(dense)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return ctx.matrix._backward.times(grad), None


@dataclass(frozen=True)
class _Csr:
    """torch's CSR kernels (CPU, CUDA)."""

    values: Tensor

    def times(self, dense: Tensor) -> Tensor:
        return self.values @ dense.contiguous()


@dataclass(frozen=True)
class _Edges:
    """Gather and add, for devices without sparse kernels (MPS)."""

    n_rows: int
    rows: Tensor
    columns: Tensor
    values: Tensor

    def times(self, dense: Tensor) -> Tensor:
        product = dense.new_zeros(self.n_rows, dense.shape[1])
        step = max(1, EDGE_BLOCK_ELEMENTS // max(1, dense.shape[1]))
        for start in range(0, len(self.values), step):
            edges = slice(start, start + step)
            product.index_add_(0, self.rows[edges], self.values[edges, None] * dense[self.columns[edges]])
        return product


def _place(matrix: sp.csr_matrix, device: torch.device, dtype: torch.dtype) -> _Csr | _Edges:
    if device.type == "mps":
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        row_index, column_index = (torch.from_numpy(a.astype(np.int64)).to(device) for a in (rows, matrix.indices))
        values = torch.from_numpy(matrix.data).to(dtype).to(device)
        return _Edges(int(matrix.shape[0]), row_index, column_index, values)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        csr = torch.sparse_csr_tensor(
            torch.from_numpy(matrix.indptr.astype(np.int64)),
            torch.from_numpy(matrix.indices.astype(np.int64)),
            torch.from_numpy(matrix.data).to(dtype),
            size=matrix.shape,
            device=device,
            check_invariants=False,
        )
    return _Csr(csr)
