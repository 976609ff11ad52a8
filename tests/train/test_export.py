"""The exported file as any other ONNX runtime would see it, and the bundle it goes into."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from scrcl_infer.bundle import read_bundle, write_bundle
from scrcl_infer.contract import TENSORS, Parity
from scrcl_infer.errors import ExportError
from scrcl_infer.verify import verify_bundle
from scrcl_train import export
from scrcl_train.distil import distil
from scrcl_train.export import GOLDEN_CELLS, GOLDEN_GAP, build_bundle, make_golden
from scrcl_train.naming import name_populations
from scrcl_train.onnx_graph import OPSET, export_onnx
from scrcl_train.parity import NearTieError, check_parity, run_onnx
from scrcl_train.populations import fit_centroids
from scrcl_train.student import Student, predict
from tests.student_case import N_GENES, QUICK, make_parts, make_small_bundle, make_targets, make_world, teach

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model() -> bytes:
    return export_onnx(teach(labelled=True)[1], "0123456789abcdef")


def test_the_file_is_valid_and_whole(model: bytes) -> None:
    proto = onnx.load_from_string(model)
    onnx.checker.check_model(proto, full_check=True)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", OPSET)]
    assert {entry.key: entry.value for entry in proto.metadata_props} == {"contract_id": "0123456789abcdef"}
    assert all(t.data_location == onnx.TensorProto.DEFAULT for t in proto.graph.initializer)


def test_names_types_and_shapes_are_the_contracts(model: bytes) -> None:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    inputs = {i.name: (i.type, i.shape[1]) for i in session.get_inputs()}
    outputs = {o.name: (o.type, o.shape[1]) for o in session.get_outputs()}
    assert inputs == {TENSORS.counts: ("tensor(float)", N_GENES), TENSORS.library_size: ("tensor(float)", 1)}
    assert outputs == {
        TENSORS.embedding: ("tensor(float)", 6),
        TENSORS.log_posterior: ("tensor(float)", 3),
        TENSORS.map: ("tensor(float)", 2),
        TENSORS.components: ("tensor(float)", 360 // 16 + 2),
        TENSORS.rarity: ("tensor(float)", 3),
        TENSORS.log_type_posterior: ("tensor(float)", 3),
    }
    assert all(isinstance(tensor.shape[0], str) for tensor in (*session.get_inputs(), *session.get_outputs()))


@pytest.mark.parametrize("n_cells", [0, 1, 7, 300])
def test_any_number_of_cells(model: bytes, n_cells: int) -> None:
    world, student = teach(labelled=True)
    counts, library = world.counts[:n_cells], world.library_size[:n_cells]
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    feed = {TENSORS.counts: counts.toarray(), TENSORS.library_size: library[:, None]}
    (embedding,) = session.run([TENSORS.embedding], feed)
    np.testing.assert_allclose(embedding, predict(student, counts, library).embedding, atol=1e-5)


def test_what_genes_are_multiplied_by_are_the_students_weights_in_8_bits(model: bytes) -> None:
    _, student = teach(labelled=True)
    graph = onnx.load_from_string(model).graph
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    whole = [tensors[node.input[1]] for node in graph.node if node.op_type == "MatMulInteger"]
    assert [found.dtype for found in whole] == [np.int8] * 3
    (rarity,) = [found for found in whole if found.shape == (N_GENES, 3)]
    np.testing.assert_array_equal(rarity, student.rarity.numpy())
    wanted = (student.first.weight.detach().numpy().T, student.directions.numpy())
    for found, weights in zip([found for found in whole if found is not rarity], wanted, strict=True):
        np.testing.assert_allclose(found * (np.abs(weights).max(axis=0) / 127), weights, rtol=1e-5, atol=1e-8)


def test_rarity_is_the_sum_over_the_genes_that_a_cell_shows_in_both_runtimes(model: bytes) -> None:
    world, student = teach(labelled=True)
    expected = (world.counts.toarray() > 0).astype(np.float64) @ student.rarity.numpy().astype(np.float64)
    for answer in (
        predict(student, world.counts, world.library_size),
        run_onnx(model, world.counts, world.library_size),
    ):
        np.testing.assert_array_equal(answer.rarity, expected)


def test_the_same_student_gives_the_same_bytes(model: bytes) -> None:
    assert export_onnx(teach(labelled=True)[1], "0123456789abcdef") == model


def test_no_trace_of_the_machine_is_left(model: bytes) -> None:
    for trace in (str(ROOT), "student.py", "scrcl_train", "site-packages", "forward"):
        assert trace.encode() not in model


def test_nothing_is_printed() -> None:
    code = (
        "from tests.student_case import make_world, StudentConfig, Student\n"
        "from scrcl_train.onnx_graph import export_onnx\n"
        "import numpy as np\n"
        "export_onnx(Student(np.zeros(5, np.float32), StudentConfig(), n_populations=2).eval(), 'id')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("labelled", [True, False])
def test_the_bundle_goes_to_disk_and_back_and_verifies(tmp_path: Path, *, labelled: bool) -> None:
    bundle = make_small_bundle(labelled=labelled)
    folder = write_bundle(bundle, tmp_path / "small-world")
    back = read_bundle(folder)
    assert back.encoder == bundle.encoder
    assert back.manifest == replace(bundle.manifest, files=back.manifest.files)
    assert back.manifest.encoder.n_types == (3 if labelled else 0)
    verify_bundle(folder)


def test_the_manifest_tells_what_was_checked() -> None:
    manifest = make_small_bundle(labelled=True).manifest
    assert manifest.parity.n_cells == 360
    assert manifest.parity.label_agreement == 1.0
    assert manifest.created_by.startswith("scrcl ")
    proto = onnx.load_from_string(make_small_bundle(labelled=True).encoder)
    assert proto.metadata_props[0].value == manifest.contract_id


def test_golden_rows_cover_the_populations_and_are_no_near_ties(model: bytes) -> None:
    world, _ = teach(labelled=True)
    golden = make_golden(model, world.counts, world.library_size)
    assert golden.counts.shape == (GOLDEN_CELLS, N_GENES)
    assert golden.library_size.shape == (GOLDEN_CELLS, 1)
    best = np.bincount(golden.log_posterior.argmax(axis=1), minlength=3)
    assert best.min() >= GOLDEN_CELLS // 3 - 1
    for head in (golden.log_posterior, golden.log_type_posterior):
        top = np.sort(head, axis=1)
        assert (top[:, -1] - top[:, -2] > GOLDEN_GAP).all()


def test_golden_rows_of_few_cells_are_all_of_them(model: bytes) -> None:
    world = make_world(5, seed=2)
    assert make_golden(model, world.counts, world.library_size).counts.shape == (5, N_GENES)


def test_parts_of_another_model_are_refused() -> None:
    world, student = teach(labelled=True)
    parts = make_parts(labelled=True)
    other = replace(parts, populations=parts.populations[:2], cell_types=parts.cell_types[:1])
    with pytest.raises(ValueError, match=r"'populations': \(3, 2\), 'types': \(3, 1\)"):
        build_bundle(student, other, world.counts, world.library_size)


def test_a_near_tie_is_parted_and_every_cell_checked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    world, student = teach(labelled=True)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    checked = []

    def check(taught: Student, model: bytes, *cells: object) -> Parity:
        checked.append(taught)
        if len(checked) == 1:
            msg = "two answers lie 1e-7 apart"
            raise NearTieError(msg)
        return check_parity(taught, model, *cells)  # type: ignore[arg-type]

    monkeypatch.setattr(export, "check_parity", check)
    bundle = build_bundle(student, make_parts(labelled=True), world.counts, world.library_size)
    assert len(checked) == 2
    assert bundle.manifest.parity.label_agreement == 1.0
    moved = {name for name, value in checked[1].state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"population_head.bias", "type_head.bias"}
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert float((checked[1].state_dict()["type_head.bias"] - before["type_head.bias"]).abs().max()) < 6e-3


def test_a_tie_that_stays_is_refused_after_a_few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    world, student = teach(labelled=False)
    tries = []

    def refuse(*_: object) -> Parity:
        tries.append(1)
        msg = "two answers lie 1e-7 apart"
        raise NearTieError(msg)

    monkeypatch.setattr(export, "check_parity", refuse)
    monkeypatch.setattr(export, "export_onnx", lambda *_: b"")
    with pytest.raises(ExportError, match="1e-7 apart"):
        build_bundle(student, make_parts(labelled=False), world.counts, world.library_size)
    assert len(tries) == export.N_NUDGES + 1


def test_one_population_alone_makes_a_bundle_that_verifies(tmp_path: Path) -> None:
    """Its probability is 1 for every cell: no lead over a second best may be asked for."""
    world, _ = teach(labelled=False)
    alone = np.zeros_like(world.truth)
    targets = replace(make_targets(world, labelled=False), populations=alone, n_populations=1)
    student = distil(world.counts, world.library_size, targets, config=QUICK)
    populations, types = name_populations(alone, None)
    answer = predict(student, world.counts, world.library_size)
    parts = make_parts(labelled=False)
    parts = replace(
        parts,
        populations=populations,
        cell_types=types,
        centroids=fit_centroids(answer.embedding, alone, 1),
        gene_graph=replace(parts.gene_graph, association=parts.gene_graph.association[:1]),
    )
    bundle = build_bundle(student, parts, world.counts, world.library_size)
    assert len(bundle.golden.counts) == GOLDEN_CELLS
    verify_bundle(write_bundle(bundle, tmp_path / "alone"))


def test_a_wrong_answer_is_not_nudged_away(monkeypatch: pytest.MonkeyPatch) -> None:
    world, student = teach(labelled=True)

    def refuse(*_: object) -> Parity:
        msg = "differs by 1e-2"
        raise ExportError(msg)

    monkeypatch.setattr(export, "check_parity", refuse)
    with pytest.raises(ExportError, match="differs by 1e-2"):
        build_bundle(student, make_parts(labelled=True), world.counts, world.library_size)
