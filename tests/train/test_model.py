"""The network against the authors' own outputs from the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from scrcl_train.graphs import gcn_normalise
from scrcl_train.layers import CellGraph, SparseMatrix
from scrcl_train.model import Scrcl, TeacherInputs, paper_model, program_model, program_profiles

GOLDEN = Path(__file__).parent.parent / "data" / "golden" / "forward.npz"
LAYERS = ("views.mlp", "views.gcn1", "views.gcn2", "views.gcn_out", "refinement.gene_gcn", "refinement.projector")


def golden_model() -> tuple[Scrcl, TeacherInputs, dict[str, np.ndarray]]:
    golden = dict(np.load(GOLDEN))
    model = paper_model(60, 40, hidden=24, dim=5, dropout=0.3).double()
    names = [f"{layer}.{part}" for layer in LAYERS for part in ("weight", "bias")]
    model.load_state_dict({name: torch.from_numpy(golden[name.split(".", 1)[1].replace(".", "_")]) for name in names})
    cells = CellGraph.from_adjacency(sp.csr_matrix(golden["adj"]), dtype=torch.float64)
    genes = gcn_normalise(sp.csr_matrix(golden["gene_adj_directed"]))
    inputs = TeacherInputs(
        smoothed=torch.from_numpy(golden["smoothed_3"]),
        propagated=cells.normalised @ torch.from_numpy(golden["smoothed_1"]),
        cells=cells,
        genes=SparseMatrix(genes, symmetric=False, dtype=torch.float64),
    )
    return model.eval(), inputs, golden


def test_every_output_is_the_authors() -> None:
    model, inputs, golden = golden_model()
    output = model(inputs)
    for name, tensor in output._asdict().items():
        np.testing.assert_allclose(tensor.detach(), golden[name], rtol=1e-9, atol=1e-12, err_msg=name)


class _Shapes(TorchDispatchMode):
    """Notes the shapes that operations return."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.seen |= {tuple(t.shape) for t in ([result] if isinstance(result, Tensor) else []) if not t.is_sparse_csr}
        return result


def test_no_product_of_cells_by_genes_or_by_cells() -> None:
    model, inputs, _ = golden_model()
    with _Shapes() as shapes:
        output = model.train()(inputs)
        sum(tensor.sum() for tensor in output).backward()
    # (40, 60) is the view Xᵀ of the gene convolution, which costs nothing.
    assert shapes.seen.isdisjoint({(60, 40), (60, 60)})
    assert (60, 24) in shapes.seen


def test_dropout_only_in_training() -> None:
    model, inputs, _ = golden_model()
    assert torch.equal(model(inputs).z_1, model(inputs).z_1)
    model.train()
    assert not torch.equal(model(inputs).z_1, model(inputs).z_1)


def test_every_weight_gets_a_gradient() -> None:
    model, inputs, _ = golden_model()
    output = model.train()(inputs)
    sum((tensor**3).sum() for tensor in output).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_have_unit_length(dtype: torch.dtype) -> None:
    model, inputs, golden = golden_model()
    cells = CellGraph.from_adjacency(sp.csr_matrix(golden["adj"]), dtype=dtype)
    genes = SparseMatrix(gcn_normalise(sp.csr_matrix(golden["gene_adj_directed"])), symmetric=False, dtype=dtype)
    output = model.to(dtype)(TeacherInputs(inputs.smoothed.to(dtype), inputs.propagated.to(dtype), cells, genes))
    for tensor in output[:4]:
        torch.testing.assert_close(tensor.norm(dim=1), torch.ones(60, dtype=dtype))


def make_programs() -> tuple[Scrcl, TeacherInputs, np.ndarray, np.ndarray]:
    """40 cells, 12 genes, 6 components: the network, its input, the loadings and the profiles by plain numpy."""
    rng = np.random.default_rng(0)
    loadings, spread = np.linalg.qr(rng.normal(size=(12, 6)))[0], np.arange(6, 0, -1.0)
    gene_links = np.triu(rng.random((12, 12)) < 0.3, 1)
    gene_adjacency = (gene_links | gene_links.T) + np.eye(12)
    scale = gene_adjacency.sum(0) ** -0.5
    profiles = (scale[:, None] * gene_adjacency * scale) @ (loadings * spread)
    profiles -= profiles.mean(0)
    profiles /= np.linalg.norm(profiles, axis=0).mean()
    links = np.triu(rng.random((40, 40)) < 0.1, 1)
    cells = CellGraph.from_adjacency(sp.csr_matrix((links | links.T).astype(float)), dtype=torch.float64)
    genes = SparseMatrix(gcn_normalise(sp.csr_matrix(gene_adjacency)), symmetric=True, dtype=torch.float64)
    torch.manual_seed(1)
    found = program_profiles(torch.from_numpy(loadings), torch.from_numpy(spread), genes)
    np.testing.assert_allclose(found, profiles, rtol=1e-9, atol=1e-12)
    model = program_model(torch.from_numpy(loadings).float(), found.float(), hidden=16, dim=4, dropout=0.3).double()
    scores = torch.from_numpy(rng.normal(size=(40, 6)))
    inputs = TeacherInputs(scores, cells.normalised @ scores, cells, genes)
    return model.eval(), inputs, loadings, profiles


def test_programs_follow_their_equations() -> None:
    model, inputs, loadings, profiles = make_programs()
    weights = {name: value.detach().numpy() for name, value in model.state_dict().items()}
    np.testing.assert_allclose(
        weights["refinement.projection"], weights["views.mlp.weight"] @ loadings.T, rtol=1e-5, atol=1e-6
    )
    output = model(inputs)
    gene_embedding = profiles @ weights["refinement.programs.weight"].T
    np.testing.assert_allclose(output.gene_embedding.detach(), gene_embedding, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(output.gene_embedding.detach().mean(0), 0, atol=1e-6)
    hidden = np.maximum(inputs.smoothed.numpy() @ weights["views.mlp.weight"].T + weights["views.mlp.bias"], 0)
    refined = hidden / np.linalg.norm(hidden, axis=1, keepdims=True) @ weights["refinement.projection"] @ gene_embedding
    refined -= refined.mean(0)
    np.testing.assert_allclose(
        output.z_1.detach(), refined / np.linalg.norm(refined, axis=1, keepdims=True), rtol=1e-4, atol=1e-5
    )


def test_programs_keep_their_rank_where_the_paper_form_collapses() -> None:
    """Participation ratio of the singular values of Z: untrained, the paper's form is nearly one-dimensional."""
    model, inputs, _, _ = make_programs()
    paper, paper_inputs, _ = golden_model()

    def rank(z: Tensor) -> float:
        values = torch.linalg.svdvals(z.detach())
        return float(values.sum() ** 2 / (values**2).sum())

    assert rank(model(inputs).z_1) > 2
    assert rank(paper(paper_inputs).z_1) < 1.1


def test_programs_form_no_product_of_cells_by_genes() -> None:
    model, inputs, _, _ = make_programs()
    with _Shapes() as shapes:
        sum(tensor.sum() for tensor in model.train()(inputs)).backward()
    assert shapes.seen.isdisjoint({(40, 12), (40, 40)})
    assert all(parameter.grad is not None for parameter in model.parameters())
