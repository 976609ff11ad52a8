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
from scrcl_train.model import Scrcl, TeacherInputs

GOLDEN = Path(__file__).parent.parent / "data" / "golden" / "forward.npz"
LAYERS = ("mlp", "gcn1", "gcn2", "gcn_out", "gene_gcn", "projector")


def golden_model() -> tuple[Scrcl, TeacherInputs, dict[str, np.ndarray]]:
    golden = dict(np.load(GOLDEN))
    model = Scrcl(60, 40, hidden=24, dim=5, dropout=0.3).double()
    names = [f"{layer}.{part}" for layer in LAYERS for part in ("weight", "bias")]
    model.load_state_dict({name: torch.from_numpy(golden[name.replace(".", "_")]) for name in names})
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
