"""Sparse products against scipy, forward and backward, with and without sparse kernels."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scrcl_infer.errors import TrainingError
from scrcl_train import layers
from scrcl_train.layers import CellGraph, SparseMatrix


def random_matrix(seed: int, n_rows: int, n_columns: int) -> sp.csr_matrix:
    rng = np.random.default_rng(seed)
    dense = rng.normal(size=(n_rows, n_columns)) * (rng.random((n_rows, n_columns)) < 0.3)
    return sp.csr_matrix(dense)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), n_rows=st.integers(1, 9), n_columns=st.integers(1, 9), width=st.integers(1, 5))
def test_product_and_gradient_are_scipys(seed: int, n_rows: int, n_columns: int, width: int) -> None:
    matrix = random_matrix(seed, n_rows, n_columns)
    rng = np.random.default_rng(seed + 1)
    dense = torch.from_numpy(rng.normal(size=(n_columns, width))).requires_grad_()
    upstream = rng.normal(size=(n_rows, width))
    product = SparseMatrix(matrix, symmetric=False, dtype=torch.float64) @ dense
    product.backward(torch.from_numpy(upstream))
    np.testing.assert_allclose(product.detach(), matrix @ dense.detach().numpy(), atol=1e-12)
    np.testing.assert_allclose(dense.grad, matrix.T @ upstream, atol=1e-12)


def test_symmetric_matrix_is_stored_once_and_serves_both_ways() -> None:
    half = random_matrix(5, 8, 8)
    matrix = sp.csr_matrix(half + half.T)
    placed = SparseMatrix(matrix, symmetric=True, dtype=torch.float64)
    assert placed._forward is placed._backward
    dense = torch.rand(8, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: placed @ x, (dense,))


@pytest.mark.parametrize("block_elements", [2**24, 6])
def test_gather_and_add_equals_the_sparse_kernel(block_elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of MPS, run here on the CPU: in one piece, and two edges at a time."""
    monkeypatch.setattr(layers, "EDGE_BLOCK_ELEMENTS", block_elements)
    matrix = random_matrix(7, 6, 5)
    rows = torch.from_numpy(np.repeat(np.arange(6), np.diff(matrix.indptr)))
    edges = layers._Edges(6, rows, torch.from_numpy(matrix.indices).long(), torch.from_numpy(matrix.data))
    dense = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(edges.times(torch.from_numpy(dense)), matrix @ dense, atol=1e-12)


def test_transposed_views_are_multiplied_as_they_read() -> None:
    matrix = random_matrix(9, 6, 5)
    dense = torch.rand(3, 5, dtype=torch.float64).T
    product = SparseMatrix(matrix, symmetric=False, dtype=torch.float64) @ dense
    np.testing.assert_allclose(product, matrix @ dense.numpy(), atol=1e-12)


def test_wrong_number_of_rows_is_refused() -> None:
    with pytest.raises(TrainingError, match="expected 5 rows"):
        SparseMatrix(random_matrix(1, 6, 5), symmetric=False) @ torch.rand(6, 2)


def test_cell_graph_adds_loops_and_counts_them() -> None:
    adjacency = np.array([[0, 1, 1, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], dtype=np.float32)
    graph = CellGraph.from_adjacency(sp.csr_matrix(adjacency), dtype=torch.float64)
    identity = torch.eye(4, dtype=torch.float64)
    looped = adjacency + np.eye(4)
    np.testing.assert_array_equal(graph.degree[:, 0], [3, 2, 2, 1])
    np.testing.assert_array_equal(graph.looped @ identity, looped)
    scale = np.diag(np.array([3, 2, 2, 1]) ** -0.5)
    np.testing.assert_allclose(graph.normalised @ identity, scale @ looped @ scale, rtol=1e-12)
    assert (graph.n_cells, graph.looped.n_stored) == (4, 8)
