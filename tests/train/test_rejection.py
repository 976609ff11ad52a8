"""`scrcl_train.rejection` against scikit-learn's covariance, plain quantiles, and cells that nobody has seen."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from sklearn.covariance import EmpiricalCovariance

from scrcl_infer.depth import expect
from scrcl_infer.familiarity import FamiliarityTally, doubt
from scrcl_infer.rarity import expect_rarity
from scrcl_infer.result import AssignedBlock, GeneReport
from scrcl_infer.strangeness import N_SIGNS, add_signs, compute_signs, compute_strangeness, refer
from scrcl_train.calibration import calibrate
from scrcl_train.classes import RADIUS_CELLS, SHRINKAGE, fit_classes, spaces_of
from scrcl_train.rejection import (
    KEPT_FRACTION,
    VIEWS,
    HeldOut,
    Scale,
    Signs,
    fit_limit,
    fit_usual,
    join,
    measure_held_out,
    quantile,
)
from scrcl_train.student import Student, predict
from scrcl_train.student_input import fit_input_directions, take_roots
from tests.make_bundle import tiny_bundle
from tests.student_case import QUICK, World, make_targets, make_world, teach


def brute_force(distances: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Nearest of distances (n, C), each measured by the mean of the class's own, with thirty more at the median."""
    names, codes = np.unique(classes, return_inverse=True)
    own = distances[np.arange(len(codes)), codes]
    few = np.full(RADIUS_CELLS, np.median(own))
    radii = [np.concatenate([own[codes == k], few]).mean() for k in range(len(names))]
    return np.asarray((distances / radii).min(axis=1))


def mahalanobis(values: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Distances to each class mean, with scikit-learn's covariance within classes."""
    names, means = np.unique(classes), class_means(values, classes)
    residual = values - means[np.searchsorted(names, classes)]
    covariance = EmpiricalCovariance(assume_centered=True).fit(residual).covariance_ * (
        len(values) / (len(values) - len(names))
    )
    size = len(covariance)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.trace(covariance) / size * np.eye(size)
    return np.asarray(cdist(values, means, "mahalanobis", VI=np.linalg.inv(shrunk)))


def class_means(values: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.stack([values[classes == name].mean(axis=0) for name in np.unique(classes)])


@pytest.mark.parametrize("labelled", [True, False])
def test_distances_are_mahalanobis_and_an_angle_measured_by_each_classs_own_cells(*, labelled: bool) -> None:
    world, student = teach(labelled=labelled)
    answer = predict(student, world.counts, world.library_size)
    some = np.where(np.arange(world.truth.size) % 7 == 0, -1, world.truth)
    n_detected = np.asarray((world.counts > 0).sum(axis=1)).reshape(-1)
    classes = fit_classes(student, answer, some)
    found = compute_signs(spaces_of(answer), n_detected, classes, expect_rarity(classes.rarity))
    known = some >= 0
    embedding, parts = (values[known].astype(np.float64) for values in (answer.embedding, answer.components))
    roots = take_roots(world.counts, world.library_size).toarray()[known]
    shown = roots @ student.directions.numpy()
    means = class_means(shown, some[known])
    rate = world.counts.toarray()[known] / world.library_size[known, None] * 1e4
    length = np.linalg.norm(8 * ((1 + rate) ** 0.125 - 1), axis=1)
    expected = (
        mahalanobis(embedding, some[known]),
        mahalanobis(parts[:, 1:-1], some[known]),
        1 - shown @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T / length[:, None],
    )
    types = answer.log_type_posterior if labelled else answer.log_posterior
    assert types is not None
    np.testing.assert_allclose(found[:, -1], np.log1p(-np.exp(types.astype(np.float64)).max(axis=1)), atol=0.01)
    for column, distances in enumerate(expected):
        np.testing.assert_allclose(
            found[known, column], brute_force(distances, some[known]), rtol=2e-3, atol=5e-3, err_msg=str(column)
        )


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60), st.floats(0, 1))
def test_even_weights_give_the_plain_quantile(values: list[float], share: float) -> None:
    array = np.array(values)
    found = quantile(array, np.full(array.size, 0.25), share)
    assert found == np.quantile(array, share, method="inverted_cdf") or share * array.size == pytest.approx(
        round(share * array.size), abs=1e-6
    )


def test_a_cell_counts_as_often_as_its_weight_says() -> None:
    values, weights = np.array([3.0, 1.0, 2.0]), np.array([5.0, 1.0, 2.0])
    repeated = np.repeat(values, weights.astype(int))
    for share in (0.05, 0.2, 0.3, 0.45, 0.99):
        assert quantile(values, weights, share) == np.quantile(repeated, share, method="inverted_cdf")


def draw(n: int, seed: int) -> Signs:
    """Signs that grow and spread as fewer genes are detected."""
    rng = np.random.default_rng(seed)
    n_detected = np.rint(10 ** rng.uniform(1, 3, n)).astype(np.int64)
    scale = (4 - np.log10(n_detected))[:, None]
    return Signs(scale * (2 + rng.gamma(2, 0.3, (n, N_SIGNS))), n_detected)


def held_out(n: int, seed: int) -> HeldOut:
    """Cells as measured, and four times as many with all genes, twice as many with fewer, of another distribution."""
    fewer = [Signs(1.5 * cells.values, cells.n_detected) for cells in (draw(2 * n, seed + 1), draw(2 * n, seed + 2))]
    return HeldOut(draw(n, seed), (*fewer, draw(4 * n, seed + 3)))


def fit(parts: list[HeldOut]) -> Scale:
    usual = fit_usual(parts)
    weights = np.linspace(0.5, 1, usual[0].median.size, dtype=np.float32).reshape(-1, N_SIGNS)
    return fit_limit(parts, tuple(at._replace(weights=weights) for at in usual))


@given(seed=st.integers(0, 1000), n=st.integers(1, 400))
@settings(max_examples=30, deadline=None)
def test_95_percent_are_kept_of_those_measured_and_of_those_changed(seed: int, n: int) -> None:
    parts = [held_out(n, seed), held_out(3, seed + 9)]
    scale = fit(parts)
    assert scale.within.mean() >= KEPT_FRACTION - 1e-9
    assert len(scale.within) == n + 3
    for view, usual in enumerate(scale.usual):
        assert (excess(join([part.changed[view] for part in parts]), scale, view) <= 0).mean() >= KEPT_FRACTION - 1e-9
        assert np.all(np.diff(usual.log_detected) > 0)
        assert np.all(usual.spread > 0)
        for array in (usual.log_detected, usual.median, usual.spread, scale.limit):
            assert array.dtype == np.float32


def excess(cells: Signs, scale: Scale, view: int) -> NDArray[np.float64]:
    usual = scale.usual[view]
    limit = expect(scale.limit[view], cells.n_detected, usual.log_detected)
    return add_signs(cells.values, cells.n_detected, usual) - limit


def test_about_as_many_are_kept_at_every_depth_whatever_genes_are_missing() -> None:
    scale = fit([held_out(3000, 0)])
    for view, fresh in enumerate(held_out(20000, 10).changed):
        kept = excess(fresh, scale, view) <= 0
        for low, high in ((10, 30), (30, 100), (100, 300), (300, 1000)):
            here = (fresh.n_detected >= low) & (fresh.n_detected < high)
            assert kept[here].mean() == pytest.approx(0.95, abs=0.03)


def test_an_overlap_of_which_no_cell_is_left_is_as_the_others() -> None:
    part = held_out(300, 0)
    bare = HeldOut(part.measured, (Signs(np.zeros((0, N_SIGNS)), np.zeros(0, np.int64)), *part.changed[1:]))
    for found in (fit([bare]), fit([part])):
        assert np.isfinite(found.limit).all()
        assert all(np.isfinite(usual.median).all() for usual in found.usual)


def novel_cells(n: int = 80) -> World:
    """Cells that raise ten genes which no known population raises."""
    world = make_world(n, seed=9)
    rate = np.ones(60)
    rate[40:50] = 8.0
    counts = np.random.default_rng(3).poisson(rate, (n, 60)).astype(np.float32)
    return World(sp.csr_matrix(counts), counts.sum(axis=1) * 2, world.truth)


def measure(student: Student, world: World, rejected: World) -> NDArray[np.float64]:
    targets = make_targets(world, labelled=True)
    calibrated = calibrate(world.counts, world.library_size, targets, config=QUICK)
    answer = predict(student, world.counts, world.library_size)
    rejection = calibrated.complete(fit_classes(student, answer, targets.classes))
    assert rejection is not None
    spaces = spaces_of(predict(student, rejected.counts, rejected.library_size))
    n_detected = np.asarray((rejected.counts > 0).sum(axis=1)).reshape(-1)
    return compute_strangeness(spaces, n_detected, refer(rejection))


def test_cells_of_a_new_type_are_strange_and_fresh_cells_of_known_types_are_not() -> None:
    world, student = teach(labelled=True)
    assert (measure(student, world, make_world(200, seed=5)) <= 0).mean() > 0.9
    assert (measure(student, world, novel_cells()) > 0).mean() > 0.8


def test_a_file_of_another_tissue_raises_the_doubt_and_one_of_the_same_does_not() -> None:
    world, student = teach(labelled=True)
    genes = GeneReport(60, 60, 1.0, "var_names as names", 0, 0, ())
    doubts = []
    for cells in (make_world(200, seed=5), novel_cells()):
        strangeness = measure(student, world, cells).astype(np.float32)
        whole, zero = np.zeros(len(strangeness), np.int32), np.zeros(len(strangeness), np.float32)
        tally = FamiliarityTally()
        tally.add(AssignedBlock(0, whole, whole, zero, zero, zero[:, None], zero[:, None], strangeness=strangeness))
        doubts.append(doubt(tally.summarise(genes), tiny_bundle().manifest, genes, unknown_share=0.0))
    assert doubts[0] == []
    assert "do not look like the data of the model" in doubts[1][0]


def test_held_out_cells_are_measured_as_they_are_and_changed() -> None:
    world, student = teach(labelled=False)
    answer = predict(student, world.counts, world.library_size)
    classes = fit_classes(student, answer, world.truth)
    found = measure_held_out(student, classes, world.counts[:50], world.library_size[:50], seed=1)
    n_detected = np.asarray((world.counts > 0).sum(axis=1)).reshape(-1)
    expected = compute_signs(spaces_of(answer), n_detected, classes, expect_rarity(classes.rarity))[:50]
    np.testing.assert_allclose(found.measured.values, expected, rtol=1e-3, atol=1e-3)
    assert [len(cells.n_detected) > 30 * n for cells, n in zip(found.changed, VIEWS.values(), strict=True)] == [
        True
    ] * 3
    shown = [np.median(cells.n_detected) for cells in (*found.changed, found.measured)]
    assert shown == sorted(shown)
    assert shown[0] < 0.4 * shown[2]
    again = measure_held_out(student, classes, world.counts[:50], world.library_size[:50], overlaps=[1.0], seed=1)
    assert len(again.changed) == 1


def test_directions_are_the_mean_and_the_components_across_it() -> None:
    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.poisson(rng.gamma(1, 1, (300, 4)) @ rng.gamma(1, 1, (4, 90))).astype(np.float32))
    library = np.asarray(counts.sum(axis=1)).reshape(-1)
    roots = np.round(58 * ((1 + counts.toarray() / library[:, None] * 1e4) ** 0.125 - 1))
    mean = roots.mean(axis=0) / np.linalg.norm(roots.mean(axis=0))
    across = roots - np.outer(roots @ mean, mean)
    vectors = np.linalg.eigh(np.cov(across.T, bias=True))[1][:, ::-1]
    for n_components in (3, 60, 89):  # by iteration, at once, and all there are
        found = fit_input_directions(counts, library, n_components)
        np.testing.assert_allclose(found[:, 0], mean, atol=1e-6)
        np.testing.assert_allclose(np.abs(np.sum(found[:, 1:4] * vectors[:, :3], axis=0)), 1, atol=1e-4)
        np.testing.assert_allclose(found.T @ found, np.eye(n_components + 1), atol=1e-4)


def test_genes_without_counts_have_directions_too() -> None:
    found = fit_input_directions(sp.csr_matrix((5, 20), dtype=np.float32), np.ones(5, np.float32), 19)
    np.testing.assert_allclose(found.T @ found, np.eye(20), atol=1e-5)
