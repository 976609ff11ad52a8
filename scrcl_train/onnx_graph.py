"""The student as an ONNX graph, its first product in whole numbers."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from scrcl_infer.contract import TENSORS
from scrcl_train.student import Student, StudentOutput, split_weights
from scrcl_train.student_input import STEP

OPSET = 18
"""Understood by onnxruntime 1.14 and later; the exporter's own, so that nothing has to be converted."""


def export_onnx(student: Student, contract_id: str) -> bytes:
    """Serialise the student as one ONNX file that takes any number of cells.

    Parameters
    ----------
    student
        On the CPU, its weights rounded (`Student.round_weights`): the graph multiplies by the rounded ones in any case.
    contract_id
        `Manifest.contract_id`, stamped into the file's metadata so that encoder and manifest cannot be mixed up.

    Returns
    -------
    bytes
        Opset `OPSET`, no external data, inputs and outputs named as in `scrcl_infer.contract.TENSORS`; no path, source
        line or other trace of the machine it was made on.
    """
    outputs = [TENSORS.embedding, TENSORS.log_posterior, TENSORS.map, TENSORS.components, TENSORS.rarity]
    if student.n_types:
        outputs.append(TENSORS.log_type_posterior)
    # Two example cells: a dimension of 1 would be taken as fixed.
    example = (torch.ones(2, student.n_genes), torch.full((2, 1), float(student.n_genes)))
    cells = torch.export.Dim("cells")
    with _silence():
        program = torch.onnx.export(
            _WholeNumbers(student).eval(),
            example,
            input_names=[TENSORS.counts, TENSORS.library_size],
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            dynamic_shapes={TENSORS.counts: {0: cells}, TENSORS.library_size: {0: cells}},
            verbose=False,
        )
    if program is None:  # pragma: no cover - the exporter's signature allows it for its older form only
        msg = "torch.onnx.export returned nothing"
        raise RuntimeError(msg)
    model = program.model_proto
    _strip(model)
    entry = model.metadata_props.add()
    entry.key, entry.value = "contract_id", contract_id
    serialised: bytes = model.SerializeToString(deterministic=True)
    return serialised


class _WholeNumbers(nn.Module):
    """A student whose weights are rounded, for the exporter: it cannot be run by torch.

    With q the steps and W = s w split into whole numbers, W (STEP q - mean) + b = STEP s (w q) + (b - W mean): the
    product w q is of 8-bit numbers and exact.
    """

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student
        self.zero = nn.Buffer(torch.zeros((), dtype=torch.uint8))
        self.one = nn.Buffer(torch.ones(()))
        self.weights, self.sizes = _split(student.first.weight.detach())
        self.turns, self.turn_sizes = _split(student.directions.T)
        self.rare = nn.Buffer(student.rarity.to(torch.int8).contiguous())
        shifts = student.first.bias.double() - student.first.weight.double() @ student.mean.double()
        self.shifts = nn.Buffer(shifts.detach().float())

    def forward(self, counts: Tensor, library_size: Tensor) -> StudentOutput:
        steps = self.student.count_steps(counts, library_size)
        # Rounds half to even and cuts off at 0 and 255.
        whole = torch.onnx.ops.symbolic(
            "QuantizeLinear", (steps, self.one, self.zero), dtype=torch.uint8, shape=steps.shape
        )
        summed = _multiply(whole, self.weights) * self.sizes + self.shifts
        rarity = _multiply((counts > 0).to(torch.uint8), self.rare)
        return self.student.answer(steps, summed, _multiply(whole, self.turns) * self.turn_sizes, rarity)


def _split(weights: Tensor) -> tuple[nn.Buffer, nn.Buffer]:
    whole, size = split_weights(weights)
    return nn.Buffer(whole.T.to(torch.int8).contiguous()), nn.Buffer(STEP * size)


def _multiply(whole: Tensor, weights: Tensor) -> Tensor:
    shape = whole.shape[0], weights.shape[1]
    product = torch.onnx.ops.symbolic("MatMulInteger", (whole, weights), dtype=torch.int32, shape=shape)
    return product.float()


def _strip(model: object) -> None:
    """Remove what the exporter notes about the source code: file paths, lines, class names."""
    pending = [model]
    while pending:
        message = pending.pop()
        for field in ("metadata_props", "doc_string"):
            if hasattr(message, field):
                message.ClearField(field)  # type: ignore[attr-defined]
        graph = getattr(message, "graph", None)
        if graph is not None:
            pending += [graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep the exporter's remarks (packages it did not find, deprecations of its own) off the console."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
