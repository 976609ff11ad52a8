"""A bundle that is whole passes; one that lies, by another encoder or other answers, does not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from scrcl_infer.bundle import bundle_sha256, write_bundle
from scrcl_infer.contract import FILES, Bundle
from scrcl_infer.encoder import Encoder
from scrcl_infer.errors import BundleIntegrityError, BundleNotFoundError
from scrcl_infer.verify import TOLERANCES, VerifyReport, check_encoder, verify_bundle
from tests.make_bundle import onnx_model, random_weights, tiny_bundle

BUNDLE = tiny_bundle()


def verify(bundle: Bundle, folder: Path) -> VerifyReport:
    return verify_bundle(write_bundle(bundle, folder / "model"), threads=1)


def failed(report: VerifyReport) -> list[str]:
    assert report.passed == all(check.passed for check in report.checks)
    return [check.name for check in report.checks if not check.passed]


def with_golden(**arrays: np.ndarray) -> Bundle:
    return dataclasses.replace(BUNDLE, golden=dataclasses.replace(BUNDLE.golden, **arrays))


@pytest.mark.parametrize("n_types", [0, 4])
def test_a_whole_bundle_passes(n_types: int, tmp_path: Path) -> None:
    report = verify(tiny_bundle(n_types=n_types), tmp_path)
    assert failed(report) == []
    assert len(report.checks) == (9 if n_types else 8)
    assert report.name == "tiny"
    assert report.sha256 == bundle_sha256(tmp_path / "model")
    # The golden answers come from numpy: equal to rounding, and not to the last bit.
    assert report.max_abs_diff is not None
    assert 0 < report.max_abs_diff < 2e-6
    assert report.label_agreement == 1


def test_a_changed_file_fails(tmp_path: Path) -> None:
    folder = write_bundle(BUNDLE, tmp_path / "model")
    with (folder / FILES.encoder).open("ab") as file:
        file.write(b"\0")
    report = verify_bundle(folder)
    assert failed(report) == ["files"]
    assert FILES.encoder in report.checks[-1].detail
    assert report.max_abs_diff is None


def test_an_unreadable_manifest_fails(tmp_path: Path) -> None:
    folder = write_bundle(BUNDLE, tmp_path / "model")
    (folder / FILES.manifest).write_text('{"schema_version": 99}')
    report = verify_bundle(folder)
    assert failed(report) == ["manifest"]
    assert report.name == ""


def test_the_encoder_of_another_bundle_fails(tmp_path: Path) -> None:
    """Same shapes, other genes: only the contract id tells."""
    genes = dataclasses.replace(BUNDLE.manifest.genes, names=BUNDLE.manifest.genes.names[::-1])
    other = dataclasses.replace(BUNDLE, manifest=dataclasses.replace(BUNDLE.manifest, genes=genes))
    report = verify(other, tmp_path)
    assert failed(report) == ["encoder"]
    assert "contract id" in report.checks[-1].detail


def test_an_encoder_of_other_widths_is_named() -> None:
    manifest = BUNDLE.manifest
    encoder = Encoder(onnx_model(random_weights(dim=7, n_types=0), manifest.contract_id))
    with pytest.raises(BundleIntegrityError, match="dimensions: 7, expected 8; types: 0, expected 4"):
        check_encoder(encoder, manifest)


def test_an_encoder_with_other_weights_fails(tmp_path: Path) -> None:
    model = onnx_model(random_weights(seed=5), BUNDLE.manifest.contract_id)
    report = verify(dataclasses.replace(BUNDLE, encoder=model), tmp_path)
    assert failed(report) == [*(f"replay of {name}" for name in TOLERANCES), "replay of labels"]
    assert report.label_agreement is not None
    assert report.label_agreement < 1


def test_an_encoder_that_looks_at_the_neighbours_fails(tmp_path: Path) -> None:
    """The hidden layer less its mean over the batch, as a batch normalisation left in training mode would do."""
    import onnx

    model = onnx.load_from_string(BUNDLE.encoder)
    nodes = list(model.graph.node)
    place = next(i for i, node in enumerate(nodes) if "w_map" in node.input)
    leak = [
        onnx.helper.make_node("Constant", [], ["first_axis"], value_ints=[0]),
        onnx.helper.make_node("ReduceMean", ["hidden", "first_axis"], ["mean_cell"], keepdims=1),
        onnx.helper.make_node("Sub", ["hidden", "mean_cell"], ["relative"]),
    ]
    nodes[place].input[0] = "relative"
    del model.graph.node[:]
    model.graph.node.extend([*nodes[:place], *leak, *nodes[place:]])
    report = verify(dataclasses.replace(BUNDLE, encoder=model.SerializeToString()), tmp_path)
    assert failed(report) == ["replay of map", "replay beside other cells"]
    assert report.checks[-1].detail.startswith("map changed")


@pytest.mark.parametrize("name", TOLERANCES)
@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_answers_beyond_the_tolerance_fail(name: str, factor: float, tmp_path: Path) -> None:
    values = getattr(BUNDLE.golden, name).copy()
    values[3, 0] += factor * TOLERANCES[name]
    report = verify(with_golden(**{name: values}), tmp_path)
    assert failed(report) == ([f"replay of {name}"] if factor > 1 else [])


def test_nan_answers_fail(tmp_path: Path) -> None:
    values = BUNDLE.golden.map.copy()
    values[0, 0] = np.nan
    assert failed(verify(with_golden(map=values), tmp_path)) == ["replay of map"]


def test_one_other_label_fails(tmp_path: Path) -> None:
    values = BUNDLE.golden.log_posterior.copy()
    values[7] = np.roll(values[7], 1)
    report = verify(with_golden(log_posterior=values), tmp_path)
    assert failed(report) == ["replay of log_posterior", "replay of labels"]
    assert report.label_agreement == pytest.approx(31 / 32)


def test_a_bundle_without_golden_rows_passes(tmp_path: Path) -> None:
    empty = {item.name: getattr(BUNDLE.golden, item.name)[:0] for item in dataclasses.fields(BUNDLE.golden)}
    assert failed(verify(with_golden(**empty), tmp_path)) == []


def test_no_bundle_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFoundError):
        verify_bundle(tmp_path)
