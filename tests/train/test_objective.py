"""The three losses against the authors' own figures and against brute force over all pairs of cells."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from scrcl_infer.errors import TrainingError
from scrcl_train import alignment
from scrcl_train.layers import CellGraph
from scrcl_train.objective import (
    balanced_consistency,
    cross_view_consistency,
    embedding_distribution_alignment,
    neighbourhood_contrastive_alignment,
)

GOLDEN = Path(__file__).parent.parent / "data" / "golden" / "objective.npz"
RTOL = 1e-9
LONG_NAMES = {
    "eda": "embedding_distribution_alignment",
    "nca": "neighborhood_contrastive_alignment",
    "cvc": "cross_view_consistency",
}


def loss_of(name: str, view_1: Tensor, view_2: Tensor, graph: CellGraph, *, temperature: float) -> Tensor:
    if name == "eda":
        return embedding_distribution_alignment(view_1, view_2, temperature=temperature)
    if name == "nca":
        return neighbourhood_contrastive_alignment(view_1, view_2, graph, temperature=temperature)
    consistency = cross_view_consistency if name == "cvc" else balanced_consistency
    return consistency(functional.normalize(view_1), functional.normalize(view_2), graph)


def brute_force(name: str, view_1: Tensor, view_2: Tensor, adjacency: np.ndarray, *, temperature: float) -> Tensor:
    """The definitions, word for word, over all n x n pairs."""
    n_cells = len(view_1)
    looped = torch.from_numpy(adjacency + np.eye(n_cells))
    if name == "cvc":
        similarity = functional.normalize(view_1) @ functional.normalize(view_2).T
        return ((similarity - looped) ** 2).sum() / n_cells**2
    if name == "balanced":
        similarity = functional.normalize(view_1) @ functional.normalize(view_2).T
        near = (looped * similarity).sum(1) / looped.sum(1)
        return view_1.shape[1] * (similarity**2).mean() - 2 * near.mean()
    logits_1, logits_2 = view_1 / temperature, view_2 / temperature
    p, q = logits_1.softmax(1), logits_2.softmax(1)
    if name == "eda":
        all_p, all_q = logits_1.flatten().softmax(0), logits_2.flatten().softmax(0)
        over_all = (all_p * (all_p / all_q).log()).sum() + (all_q * (all_q / all_p).log()).sum()
        return over_all + ((p * (p / q).log()).sum() + (q * (q / p).log()).sum()) / (2 * n_cells)
    ratio = p[:, None].log() - q[None].log()
    divergence = (p[:, None] * ratio).sum(2) - (q[None] * ratio).sum(2)
    near = (looped * divergence).sum(1) / looped.sum(1)
    far = (divergence.sum(1) - divergence.diagonal()) / (n_cells - 1)
    return (near / far).mean()


@pytest.mark.parametrize("block_elements", [2**23, 60 * 7])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
@pytest.mark.parametrize("name", ["eda", "nca", "cvc"])
def test_authors_values_and_gradients(
    name: str, temperature: float, block_elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for constant in ("ROW_BLOCK_ELEMENTS", "COLUMN_BLOCK_ELEMENTS"):
        monkeypatch.setattr(alignment, constant, block_elements)
    golden = np.load(GOLDEN)
    prefix = f"t{temperature}_"
    keys = [f"{prefix}z_{view}_unnormalised" if name == "cvc" else f"{prefix}emb_{view}" for view in (1, 2)]
    views = [torch.from_numpy(golden[key]).requires_grad_() for key in keys]
    graph = CellGraph.from_adjacency(sp.csr_matrix(golden["adj"]), dtype=torch.float64)
    loss = loss_of(name, *views, graph, temperature=temperature)
    np.testing.assert_allclose(loss.item(), golden[f"{prefix}loss_{LONG_NAMES[name]}"], rtol=RTOL)
    for view, gradient in enumerate(torch.autograd.grad(loss, views), start=1):
        expected = golden[f"{prefix}grad_{name}_{view}"]
        np.testing.assert_allclose(gradient, expected, rtol=RTOL, atol=RTOL * np.abs(expected).max())


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n_cells=st.integers(2, 17),
    width=st.integers(2, 9),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    temperature=st.sampled_from([0.1, 0.5, 1.0]),
    name=st.sampled_from(["eda", "nca", "cvc", "balanced"]),
)
def test_all_pairs_on_random_graphs(  # isolated cells, a star among uneven degrees, and two cells alone included
    *, seed: int, n_cells: int, width: int, density: float, temperature: float, name: str
) -> None:
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.random((n_cells, n_cells)) < density, 1).astype(float)
    upper[0, 1:] = np.where(rng.random() < 0.5, 1.0, upper[0, 1:])
    adjacency = upper + upper.T
    graph = CellGraph.from_adjacency(sp.csr_matrix(adjacency), dtype=torch.float64)
    views = [functional.normalize(torch.from_numpy(rng.normal(size=(n_cells, width)))) for _ in range(2)]
    views = [view.requires_grad_() for view in views]
    loss = loss_of(name, *views, graph, temperature=temperature)
    expected = brute_force(name, *views, adjacency, temperature=temperature)
    torch.testing.assert_close(loss, expected, rtol=RTOL, atol=1e-12)
    pairs = zip(torch.autograd.grad(loss, views), torch.autograd.grad(expected, views), strict=True)
    for found, wanted in pairs:
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=RTOL * max(1.0, wanted.abs().max().item()))


@pytest.mark.parametrize("columns_a_block", [1, 3, 16, 40])
@pytest.mark.parametrize("name", ["eda", "nca"])
def test_gradients_against_finite_differences(name: str, columns_a_block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Uneven last blocks of rows and of columns included."""
    n_cells, width = 7, 37
    monkeypatch.setattr(alignment, "ROW_BLOCK_ELEMENTS", 3 * width)
    monkeypatch.setattr(alignment, "COLUMN_BLOCK_ELEMENTS", columns_a_block * n_cells)
    graph = CellGraph.from_adjacency(sp.csr_matrix(_ring(n_cells, 1)), dtype=torch.float64)
    rng = np.random.default_rng(5)
    views = [functional.normalize(torch.from_numpy(rng.normal(size=(n_cells, width)))) for _ in range(2)]
    views = [view.requires_grad_() for view in views]
    # Scaled, so that a gradient which ignores what comes from upstream is found out.
    assert torch.autograd.gradcheck(lambda *pair: 3 * loss_of(name, *pair, graph, temperature=0.3), views)


@pytest.mark.parametrize("name", ["eda", "nca"])
def test_gradients_as_often_and_for_whom_they_are_wanted(name: str) -> None:
    graph = CellGraph.from_adjacency(sp.csr_matrix(_ring(9, 2)), dtype=torch.float64)
    views = [functional.normalize(torch.rand(9, 5, dtype=torch.float64)) for _ in range(2)]
    value = loss_of(name, *views, graph, temperature=0.5)
    assert not value.requires_grad
    wanted = [view.clone().requires_grad_() for view in views]
    loss = loss_of(name, *wanted, graph, temperature=0.5)
    assert loss.item() == value.item()
    first = torch.autograd.grad(loss, wanted, retain_graph=True)
    again = torch.autograd.grad(2 * loss, wanted)
    for index in range(2):
        torch.testing.assert_close(again[index], 2 * first[index])
        pair = [wanted[0], views[1]] if index == 0 else [views[0], wanted[1]]
        (alone,) = torch.autograd.grad(loss_of(name, *pair, graph, temperature=0.5), wanted[index])
        torch.testing.assert_close(alone, first[index])


@pytest.mark.parametrize("name", ["eda", "nca", "cvc", "balanced"])
def test_float32_keeps_five_digits_near_uniform(name: str) -> None:
    """Wide unit rows at t = 1 are nearly uniform: divergences are a thousand times smaller than log probabilities."""
    rng = np.random.default_rng(3)
    adjacency = sp.csr_matrix(_ring(200, 4))
    views = [functional.normalize(torch.from_numpy(rng.random((200, 1500)))) for _ in range(2)]
    exact = loss_of(name, *views, CellGraph.from_adjacency(adjacency, dtype=torch.float64), temperature=1.0)
    single = loss_of(name, *(v.float() for v in views), CellGraph.from_adjacency(adjacency), temperature=1.0)
    np.testing.assert_allclose(single.item(), exact.item(), rtol=2e-5)


class _Largest(TorchDispatchMode):
    """Notes the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor) and tensor.layout == torch.strided:
                self.elements = max(self.elements, tensor.numel())
        return result


@pytest.mark.parametrize("name", ["eda", "nca", "cvc", "balanced"])
def test_nothing_grows_with_pairs_of_cells(name: str) -> None:
    n_cells, width = 3000, 6
    graph = CellGraph.from_adjacency(sp.csr_matrix(_ring(n_cells, 3)))
    views = [functional.normalize(torch.rand(n_cells, width)).requires_grad_() for _ in range(2)]
    with _Largest() as largest:
        loss_of(name, *views, graph, temperature=0.1).backward()
    assert 0 < largest.elements <= 6 * n_cells * width


def test_equal_views_align_fully() -> None:
    view = functional.normalize(torch.rand(20, 8, dtype=torch.float64))
    assert embedding_distribution_alignment(view, view, temperature=0.1).item() == pytest.approx(0, abs=1e-14)


def test_other_shapes_and_single_cells_are_refused() -> None:
    graph = CellGraph.from_adjacency(sp.csr_matrix(_ring(5, 1)))
    with pytest.raises(TrainingError, match="one shape"):
        embedding_distribution_alignment(torch.rand(5, 3), torch.rand(5, 4), temperature=1.0)
    with pytest.raises(TrainingError, match="at least two cells"):
        embedding_distribution_alignment(torch.rand(1, 3), torch.rand(1, 3), temperature=1.0)
    with pytest.raises(TrainingError, match="graph has 5 cells, the views have 6"):
        cross_view_consistency(torch.rand(6, 3), torch.rand(6, 3), graph)


def _ring(n_cells: int, reach: int) -> np.ndarray:
    rows = np.arange(n_cells)
    adjacency = np.zeros((n_cells, n_cells), dtype=np.float32)
    for step in range(1, reach + 1):
        adjacency[rows, (rows + step) % n_cells] = adjacency[(rows + step) % n_cells, rows] = 1
    return adjacency
