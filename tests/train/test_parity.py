"""An encoder that answers otherwise than the trained network must not pass."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from scrcl_infer.errors import ExportError
from scrcl_train.onnx_graph import export_onnx
from scrcl_train.parity import NearTieError, check_parity, run_onnx
from scrcl_train.student import predict
from tests.student_case import N_GENES, make_world, teach


@pytest.fixture(scope="module")
def model() -> bytes:
    return export_onnx(teach(labelled=True)[1], "contract")


def tamper(model: bytes, name: str, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> bytes:
    proto = onnx.load_from_string(model)
    (tensor,) = (t for t in proto.graph.initializer if t.name == f"student.{name}")
    tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), tensor.name))
    return proto.SerializeToString()


def test_both_runtimes_agree(model: bytes) -> None:
    world, student = teach(labelled=True)
    parity = check_parity(student, model, world.counts, world.library_size)
    assert parity.max_abs_diff <= 1e-5
    assert parity.label_agreement == 1.0
    assert parity.n_cells == len(world.truth)


def test_onnx_gives_every_output_of_torch(model: bytes) -> None:
    fresh = make_world(700, seed=3)
    _, student = teach(labelled=True)
    expected = predict(student, fresh.counts, fresh.library_size)
    found = run_onnx(model, fresh.counts, fresh.library_size[:, None])
    for name in ("embedding", "log_posterior", "map", "log_type_posterior"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=2e-5, err_msg=name)


def test_values_half_way_between_two_steps_are_rounded_alike(model: bytes) -> None:
    """Smoothed spots are no counts: some of their many values lie where a root's last place decides."""
    _, student = teach(labelled=True)
    half_way = ((1 + (np.arange(100) + 0.5) / 58) ** 8 - 1).astype(np.float32)
    near = half_way[:, None] * (1 + np.arange(-40, 40) * np.float32(2**-24))
    counts = sp.csr_matrix(np.resize(near.astype(np.float32), (len(near.flat) // N_GENES, N_GENES)))
    library = np.full((counts.shape[0], 1), 1e4, np.float32)
    expected, found = predict(student, counts, library), run_onnx(model, counts, library)
    np.testing.assert_allclose(found.components, expected.components, rtol=1e-6, atol=1e-4)
    np.testing.assert_allclose(found.embedding, expected.embedding, atol=1e-5)


def test_without_a_type_head() -> None:
    world, student = teach(labelled=False)
    plain = export_onnx(student, "contract")
    assert check_parity(student, plain, world.counts, world.library_size).label_agreement == 1.0
    assert run_onnx(plain, world.counts, world.library_size).log_type_posterior is None


def test_another_embedding_is_refused(model: bytes) -> None:
    world, student = teach(labelled=True)
    changed = tamper(model, "embedding_head.weight", lambda w: w * np.float32(1 + 1e-3) + np.float32(1e-4))
    with pytest.raises(ExportError, match=r"embedding differs by .* more than 1e-05"):
        check_parity(student, changed, world.counts, world.library_size)


@pytest.mark.parametrize("head", ["population_head", "type_head"])
def test_another_label_of_a_single_cell_is_refused(model: bytes, head: str) -> None:
    world, student = teach(labelled=True)
    answer = predict(student, world.counts, world.library_size)
    posterior = answer.log_posterior if head == "population_head" else answer.log_type_posterior
    assert posterior is not None
    # raise the runner-up of the least certain cell just past its best: no other cell changes
    order = np.argsort(posterior, axis=1)
    gap = (
        np.take_along_axis(posterior, order[:, -1:], 1)[:, 0] - np.take_along_axis(posterior, order[:, -2:-1], 1)[:, 0]
    )
    cell = int(gap.argmin())
    second = order[cell, -2]

    def raise_second(bias: NDArray[np.float32]) -> NDArray[np.float32]:
        bias[second] += gap[cell] + 1e-4
        return bias

    with pytest.raises(ExportError, match=rf"1 of {len(world.truth)} cells .* first row {cell},"):
        check_parity(student, tamper(model, f"{head}.bias", raise_second), world.counts, world.library_size)


def test_an_embedding_that_is_not_a_number_is_refused(model: bytes) -> None:
    world, student = teach(labelled=True)
    changed = tamper(model, "embedding_head.bias", lambda bias: bias * np.float32("nan"))
    with pytest.raises(ExportError, match="differs by nan"):
        check_parity(student, changed, world.counts, world.library_size)


def test_a_map_that_is_not_finite_for_an_empty_cell_is_refused(model: bytes) -> None:
    world, student = teach(labelled=True)
    changed = tamper(model, "map_centre", lambda centre: centre * np.float32("inf"))
    with pytest.raises(ExportError, match="without counts is not finite"):
        check_parity(student, changed, world.counts, world.library_size)


def test_a_near_tie_is_told_from_a_wrong_answer() -> None:
    world, student = teach(labelled=False)
    tied = copy.deepcopy(student)
    top = np.sort(predict(student, world.counts, world.library_size).log_posterior[0])[::-1]
    best, second = np.argsort(-predict(student, world.counts[:1], world.library_size[:1]).log_posterior[0])[:2]
    with torch.no_grad():
        tied.population_head.bias[second] += float(top[0] - top[1]) - 3e-5  # cell 0 is now a near tie
    model = export_onnx(tied, "contract")
    one = (world.counts[:1], world.library_size[:1])
    assert check_parity(tied, model, *one).label_agreement == 1.0

    def raise_second(bias: NDArray[np.float32]) -> NDArray[np.float32]:
        bias[second] += 6e-5
        return bias

    with pytest.raises(NearTieError, match="1 of 1 cells"):
        check_parity(tied, tamper(model, "population_head.bias", raise_second), *one)
    assert best != second
