"""`scrcl_infer.strangeness` against scipy's distances, and itself in other orders of addition."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.special import log_softmax, logsumexp

from scrcl_infer.depth import expect
from scrcl_infer.parts import Rejection
from scrcl_infer.rarity import expect_rarity
from scrcl_infer.strangeness import LEAST_DOUBT, Spaces, compute_doubt, compute_signs, compute_strangeness, refer
from tests.make_bundle import N_COMPONENTS, random_rejection


def cells(n: int, dim: int, seed: int = 0, n_classes: int = 4) -> Spaces:
    rng = np.random.default_rng(seed)
    embedding = rng.normal(size=(n, dim))
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    components = rng.normal(size=(n, N_COMPONENTS)) * 10
    components[:, -1] = np.linalg.norm(components[:, :-1], axis=1) * rng.uniform(1, 3, n)
    log_posterior = log_softmax(rng.normal(size=(n, n_classes)) * 6, axis=1)
    rarity = rng.integers(0, 40 * 127, (n, n_classes))
    return Spaces(*(values.astype(np.float32) for values in (embedding, components, rarity, log_posterior)))


def reference(dim: int, n_classes: int, seed: int = 0) -> tuple[Rejection, NDArray[np.float64], NDArray[np.float64]]:
    """A reference with a covariance of its own; and that covariance, and the means before whitening."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(dim, dim)) * 0.05
    covariance = root @ root.T + 1e-4 * np.eye(dim)
    means = cells(n_classes, dim, seed + 1).embedding.astype(np.float64)
    whitening = np.linalg.cholesky(np.linalg.inv(covariance))
    arrays = {"embedding_whitening": whitening, "embedding_means": means @ whitening}
    known = replace(random_rejection(dim, n_classes), **{k: v.astype(np.float32) for k, v in arrays.items()})
    return known, covariance, means


@pytest.mark.parametrize(("dim", "n_classes"), [(64, 9), (8, 1), (1, 3), (512, 40)])
def test_distances_are_scipys_measured_by_the_radius_of_the_class_that_is_nearest_then(
    dim: int, n_classes: int
) -> None:
    known, covariance, means = reference(dim, n_classes)
    spaces = cells(300, dim, n_classes=n_classes)
    inverse = np.linalg.inv(covariance)
    found = compute_signs(spaces, np.full(300, 7), known, refer(known).rarity)
    distances = cdist(spaces.embedding.astype(np.float64), means, "mahalanobis", VI=inverse)
    np.testing.assert_allclose(found[:, 0], (distances / known.embedding_radii).min(axis=1), rtol=1e-4, atol=5e-3)
    leading, whole = spaces.components[:, 1:-1], spaces.components[:, :-1]
    distances = cdist(leading @ known.components_whitening, known.components_means)
    np.testing.assert_allclose(found[:, 1], (distances / known.components_radii).min(axis=1), rtol=1e-4, atol=1e-2)
    # scipy divides by the length that is given; the input is longer than what its components show
    shown = np.linalg.norm(whole.astype(np.float64), axis=1) / spaces.components[:, -1]
    cosines = (1 - cdist(whole.astype(np.float64), known.profile_means, "cosine")) * shown[:, None]
    np.testing.assert_allclose(found[:, 2], ((1 - cosines) / known.profile_radii).min(axis=1), rtol=1e-5, atol=1e-5)


@given(n=st.integers(1, 70), size=st.integers(1, 33), dim=st.integers(1, 80), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_the_bits_depend_neither_on_the_block_nor_on_the_order_of_additions(
    n: int, size: int, dim: int, seed: int
) -> None:
    known, _, _ = reference(dim, 4, seed)
    spaces = cells(n, dim, seed)
    n_detected = np.random.default_rng(seed).integers(1, 900, n)
    whole = compute_strangeness(spaces, n_detected, refer(known))
    parts = [slice(i, i + size) for i in range(0, n, size)]
    cut = [compute_strangeness(Spaces(*(x[p] for x in spaces)), n_detected[p], refer(known)) for p in parts]
    assert np.concatenate(cut).tobytes() == whole.tobytes()
    order = np.random.default_rng(seed).permutation(dim)
    turned = replace(known, embedding_whitening=np.asfortranarray(known.embedding_whitening[order]))
    again = compute_signs(
        spaces._replace(embedding=spaces.embedding[:, order]), n_detected, turned, refer(known).rarity
    )
    assert again.tobytes() == compute_signs(spaces, n_detected, known, refer(known).rarity).tobytes()


def test_what_an_encoder_may_not_give_still_has_a_distance() -> None:
    known, _, _ = reference(8, 3)
    spaces = cells(3, 8, n_classes=3)
    spaces.components[:] = [[5] * (N_COMPONENTS - 1) + [0], [0] * N_COMPONENTS, [1e9] * (N_COMPONENTS - 1) + [-1]]
    assert np.isfinite(compute_signs(spaces, np.array([0, 1, 10**6]), known, refer(known).rarity)).all()


def test_strangeness_is_what_it_says() -> None:
    known, _, _ = reference(8, 3)
    spaces, n_detected = cells(50, 8, n_classes=3), np.full(50, 10)
    for n_found, share in ((1, 0.0), (20, 0.0), (36, 0.8), (40, 1.0)):
        found = np.arange(40) % 40 < n_found
        signs = compute_signs(spaces, n_detected, known, expect_rarity(known.rarity, found))
        median, spread, limit = (
            (1 - share) * values[0, 1] + share * values[1, 1] for values in (known.median, known.spread, known.limit)
        )
        expected = ((signs - median) / spread) @ known.weights[1] - limit
        np.testing.assert_allclose(
            compute_strangeness(spaces, n_detected, refer(known, found)), expected, rtol=1e-5, atol=1e-5
        )
    whole = [compute_strangeness(spaces, n_detected, by) for by in (refer(known), refer(known, np.ones(40, bool)))]
    np.testing.assert_array_equal(*whole)


@given(n_classes=st.integers(1, 60), sharp=st.floats(0.1, 40), seed=st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_doubt_is_the_log_probability_of_being_wrong(n_classes: int, sharp: float, seed: int) -> None:
    log_posterior = log_softmax(np.random.default_rng(seed).normal(size=(20, n_classes)) * sharp, axis=1)
    others = np.sort(log_posterior, axis=1)[:, :-1]
    exact = logsumexp(others, axis=1) if n_classes > 1 else np.full(20, -np.inf)
    found = compute_doubt(log_posterior.astype(np.float32))
    np.testing.assert_allclose(found, np.maximum(exact, LEAST_DOUBT), rtol=1e-5, atol=2e-5)


def test_a_class_that_is_impossible_gives_no_doubt() -> None:
    log_posterior = np.array([[0, -np.inf, -np.inf], [np.log(0.5), np.log(0.5), -np.inf]], np.float32)
    np.testing.assert_allclose(compute_doubt(log_posterior), [LEAST_DOUBT, np.log(0.5)], atol=1e-5)


def test_what_is_usual_lies_on_straight_lines_between_the_knots_and_is_flat_outside() -> None:
    known = random_rejection(8, 3)
    between = round(10**0.75)
    found = expect(np.array([1.0, 3.0, 4.0], np.float32), np.array([1, 10, between, 5000]), known.log_detected)
    middle = 1 + 2 * (np.log10(between) - 0.5) / 0.5
    np.testing.assert_allclose(found, [1, 3, middle, 4])
