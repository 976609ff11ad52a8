"""`scrcl_infer.assign` against scipy's softmax, sums written out by hand, and itself on other blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scrcl_infer.assign import (
    apply_temperature,
    compute_type_posterior,
    decide,
    type_of_population,
)
from scrcl_infer.contract import (
    Calibration,
    CellType,
    EncoderSpec,
    GeneTable,
    Manifest,
    Parity,
    Population,
    Provenance,
)
from scrcl_infer.errors import BundleIntegrityError
from scrcl_infer.result import AssignedBlock
from scrcl_infer.strangeness import refer
from tests.make_bundle import N_COMPONENTS, random_rejection

TYPES = ("B", "T", "NK")
OF_TYPE = (1, 0, 1, 2, 0)  # populations P1..P5


@dataclass(frozen=True)
class Output:
    """Stands for the encoder's output."""

    embedding: NDArray[np.float32]
    log_posterior: NDArray[np.float32]
    map: NDArray[np.float32]
    log_type_posterior: NDArray[np.float32] | None
    components: NDArray[np.float32] | None = None
    rarity: NDArray[np.float32] | None = None


def manifest(*, temperature: float = 1.0, threshold: float = 0.0, n_types: int = 0) -> Manifest:
    return Manifest(
        schema_version=1,
        name="test",
        created_by="scrcl 0",
        genes=GeneTable(("g",), ("g",), ("",), (1.0,)),
        encoder=EncoderSpec(opset=17, dim=4, n_populations=5, n_types=n_types),
        populations=tuple(Population(f"P{i + 1}", TYPES[t], 10) for i, t in enumerate(OF_TYPE)),
        cell_types=tuple(CellType(name, 10) for name in TYPES),
        calibration=Calibration(temperature=temperature, threshold=threshold, kept_fraction=0.95),
        parity=Parity(0.0, 1.0, 1),
        provenance=Provenance("d", "0", 1, 1, "default", 0, (), None, {}),
    )


def output(n: int, *, seed: int = 0, head: bool = False, scale: float = 3.0) -> Output:
    rng = np.random.default_rng(seed)
    embedding = rng.normal(size=(n, 4)).astype(np.float32)
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    log_posterior = scipy.special.log_softmax(rng.normal(size=(n, 5)) * scale, axis=1).astype(np.float32)
    types = scipy.special.log_softmax(rng.normal(size=(n, 3)) * scale, axis=1).astype(np.float32) if head else None
    place, components = rng.normal(size=(n, 2)), rng.normal(size=(n, N_COMPONENTS))
    rarity = rng.integers(0, 20_000, (n, 3 if head else 5)).astype(np.float32)
    return Output(embedding, log_posterior, place.astype(np.float32), types, components.astype(np.float32), rarity)


def rows(out: Output, chosen: slice) -> Output:
    parts = (out.embedding, out.log_posterior, out.map, out.log_type_posterior, out.components, out.rarity)
    return Output(*(None if part is None else part[chosen] for part in parts))


def arrays(block: AssignedBlock) -> list[NDArray[np.generic]]:
    strangeness = np.zeros(0) if block.strangeness is None else block.strangeness
    return [block.population, block.cell_type, block.confidence, block.margin, block.embedding, block.map, strangeness]


@given(st.integers(1, 30), st.integers(0, 2**32 - 1), st.floats(0.2, 5.0))
@settings(max_examples=40, deadline=None)
def test_temperature_is_scipys_softmax_of_the_scaled_logs(n: int, seed: int, temperature: float) -> None:
    logs = output(n, seed=seed).log_posterior
    expected = scipy.special.softmax(logs.astype(np.float64) / temperature, axis=1)
    np.testing.assert_allclose(apply_temperature(logs, temperature), expected, rtol=1e-12, atol=1e-300)


def test_temperature_of_one_gives_back_the_posterior() -> None:
    logs = output(50).log_posterior
    np.testing.assert_allclose(apply_temperature(logs, 1.0), np.exp(logs.astype(np.float64)), rtol=1e-5)


def test_types_without_a_head_sum_their_populations_and_are_tempered_then() -> None:
    out = output(20)
    by_population = scipy.special.softmax(out.log_posterior.astype(np.float64), axis=1)
    sums = np.stack([by_population[:, [i for i, t in enumerate(OF_TYPE) if t == c]].sum(axis=1) for c in range(3)], 1)
    got = compute_type_posterior(out.log_posterior, None, manifest(temperature=1.7))
    np.testing.assert_allclose(got, scipy.special.softmax(np.log(sums) / 1.7, axis=1), rtol=1e-12)
    hot = compute_type_posterior(out.log_posterior, None, manifest(temperature=9.0))
    np.testing.assert_array_equal(hot.argmax(axis=1), sums.argmax(axis=1))


def test_the_sum_of_a_types_populations_can_beat_the_best_population() -> None:
    logs = np.log(np.array([[0.0, 0.3, 0.0, 0.4, 0.3]]) + 1e-12).astype(np.float32)
    out = replace(output(1), log_posterior=logs)
    answer = decide(out, np.array([7]), manifest())
    assert (answer.population[0], answer.cell_type[0]) == (3, 0)  # P4 is NK; P2 + P5 are B
    assert answer.confidence[0] == pytest.approx(0.6)
    assert answer.margin[0] == pytest.approx(0.2)


def test_a_type_head_is_believed_over_populations() -> None:
    out = output(40, head=True)
    assert out.log_type_posterior is not None
    answer = decide(out, np.ones(40, np.int64), manifest(temperature=2.0, n_types=3))
    probability = scipy.special.softmax(out.log_type_posterior.astype(np.float64) / 2.0, axis=1)
    ordered = np.sort(probability, axis=1)
    np.testing.assert_array_equal(answer.cell_type, probability.argmax(axis=1))
    np.testing.assert_array_equal(answer.population, out.log_posterior.argmax(axis=1))
    np.testing.assert_allclose(answer.confidence, ordered[:, -1], rtol=1e-6)
    np.testing.assert_allclose(answer.margin, ordered[:, -1] - ordered[:, -2], rtol=1e-5, atol=1e-7)


def test_an_empty_type_head_counts_as_none() -> None:
    out = output(5)
    empty = replace(out, log_type_posterior=np.zeros((5, 0), np.float32))
    model = manifest()
    for a, b in zip(
        arrays(decide(out, np.ones(5, np.int64), model)),
        arrays(decide(empty, np.ones(5, np.int64), model)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)


def test_cells_below_the_threshold_are_unknown_and_keep_population_and_confidence() -> None:
    out = output(200, scale=1.0)
    model = manifest(threshold=0.6)
    answer = decide(out, np.ones(200, np.int64), model, reject=True)
    forced = decide(out, np.ones(200, np.int64), model, reject=False)
    below = forced.confidence.astype(np.float64) < 0.6
    assert 0 < below.sum() < 200
    np.testing.assert_array_equal(answer.cell_type == -1, below)
    np.testing.assert_array_equal(answer.cell_type[~below], forced.cell_type[~below])
    np.testing.assert_array_equal(answer.confidence, forced.confidence)
    np.testing.assert_array_equal(answer.population, forced.population)
    assert (forced.cell_type >= 0).all()


def test_strange_cells_are_unknown_and_so_are_unsure_ones() -> None:
    out, n_detected, rejection = output(200, head=True), np.arange(200), refer(random_rejection(4, 3))
    confidence = decide(out, n_detected, manifest(n_types=3), rejection).confidence
    middle = float(np.quantile(confidence[1:].astype(np.float64), 0.502))  # between two of them
    model = manifest(n_types=3, threshold=middle)
    answer, forced = (decide(out, n_detected, model, rejection, reject=reject) for reject in (True, False))
    assert answer.strangeness is not None
    assert forced.strangeness is not None
    strange = answer.strangeness > 0
    assert 10 < strange.sum() < 190
    unsure = confidence < middle
    assert (unsure & ~strange).sum() > 10
    np.testing.assert_array_equal(answer.cell_type == -1, strange | unsure | (n_detected == 0))
    np.testing.assert_array_equal(answer.strangeness, forced.strangeness)
    assert np.isnan(answer.strangeness[0])
    assert np.isfinite(answer.strangeness[1:]).all()
    assert (forced.cell_type[1:] >= 0).all()


@pytest.mark.parametrize("lacks", [{"components": None}, {"rarity": None}, {"rarity": np.zeros((5, 2), np.float32)}])
def test_an_encoder_that_does_not_give_what_is_measured_is_refused(lacks: dict[str, Any]) -> None:
    out, n_detected = output(5, head=True), np.arange(5)
    reference = refer(random_rejection(4, 3))
    decide(out, n_detected, manifest(n_types=3), reference)
    with pytest.raises(BundleIntegrityError, match="does not give the components and the rarity"):
        decide(replace(out, **lacks), n_detected, manifest(n_types=3), reference)


def test_a_score_at_the_threshold_is_kept() -> None:
    logs = np.log(np.full((1, 5), 0.2, np.float32))
    score = float(compute_type_posterior(logs, None, manifest()).max())
    out = replace(output(1), log_posterior=logs)
    at, above = manifest(threshold=score), manifest(threshold=np.nextafter(score, 1))
    assert decide(out, np.array([7]), at).cell_type[0] == 0
    assert decide(out, np.array([7]), above).cell_type[0] == -1


@pytest.mark.parametrize("reject", [True, False])
def test_cells_without_counts_are_unknown_in_every_respect(*, reject: bool) -> None:
    n_detected = np.array([3, 0, 9])
    out = output(3)
    out.embedding[1] = np.nan  # whatever an encoder makes of an empty cell
    answer = decide(out, n_detected, manifest(), reject=reject)
    assert answer.population[1] == answer.cell_type[1] == -1
    assert answer.confidence[1] == answer.margin[1] == 0
    np.testing.assert_array_equal(answer.embedding[1], np.zeros(4))
    assert np.isnan(answer.map[1]).all()
    assert np.isfinite(answer.map[[0, 2]]).all()
    np.testing.assert_array_equal(answer.embedding[[0, 2]], out.embedding[[0, 2]])


@given(n=st.integers(1, 60), size=st.integers(1, 17), head=st.booleans(), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_the_bytes_do_not_depend_on_the_block(*, n: int, size: int, head: bool, seed: int) -> None:
    rejection = refer(random_rejection(4, 3 if head else 5, seed=seed))
    out = output(n, seed=seed, head=head)
    n_detected = np.random.default_rng(seed).integers(0, 50, n)
    model = manifest(temperature=1.3, threshold=0.5, n_types=3 if head else 0)
    whole = decide(out, n_detected, model, rejection)
    parts = [
        decide(rows(out, slice(i, i + size)), n_detected[i : i + size], model, rejection, start=i)
        for i in range(0, n, size)
    ]
    assert [p.start for p in parts] == list(range(0, n, size))
    for i, expected in enumerate(arrays(whole)):
        got = np.concatenate([arrays(p)[i] for p in parts])
        assert got.tobytes() == np.ascontiguousarray(expected).tobytes()
        assert got.dtype == expected.dtype


def test_a_value_that_is_not_finite_names_output_and_cell() -> None:
    out = output(4)
    out.log_posterior[2, 1] = np.nan
    with pytest.raises(BundleIntegrityError, match=r"'log_posterior' is not finite for cell 102"):
        decide(out, np.ones(4, np.int64), manifest(), start=100)


def test_a_probability_of_zero_is_no_error() -> None:
    logs = np.array([[-np.inf, 0, -np.inf, -np.inf, -np.inf]], np.float32)
    answer = decide(replace(output(1), log_posterior=logs), np.array([7]), manifest(temperature=2.0))
    assert answer.cell_type[0] == 0
    assert answer.confidence[0] == 1


def test_a_model_of_one_type_has_full_confidence_and_margin() -> None:
    model = manifest()
    model = replace(
        model,
        populations=tuple(replace(p, cell_type="B") for p in model.populations),
        cell_types=(CellType("B", 50),),
    )
    answer = decide(output(3), np.ones(3, np.int64), model)
    np.testing.assert_allclose(answer.confidence, 1.0, rtol=1e-6)
    np.testing.assert_array_equal(answer.confidence, answer.margin)


def test_a_population_of_a_type_that_is_not_there_is_refused() -> None:
    model = manifest()
    broken = replace(model, populations=(replace(model.populations[0], cell_type="Z"), *model.populations[1:]))
    with pytest.raises(BundleIntegrityError, match=r"\['P1'\] carry a type that is not among"):
        type_of_population(broken)
    np.testing.assert_array_equal(type_of_population(model), OF_TYPE)


def test_an_empty_block_is_answered() -> None:
    answer = decide(output(0), np.ones(0, np.int64), manifest())
    assert answer.cell_type.shape == (0,)
    assert answer.embedding.shape == (0, 4)
