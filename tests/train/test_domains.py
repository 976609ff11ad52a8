"""Domains of simulated layers, and each step of the way against what it has to be."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData
from sklearn.metrics import adjusted_rand_score

from scrcl_infer.errors import TrainingError
from scrcl_infer.spatial import Spots, make_spot_graph
from scrcl_train.domains import (
    agree,
    find_domains,
    fit_mixture,
    keep_metric,
    make_domain_views,
    slow_factors,
)
from scrcl_train.graphs import gcn_normalise
from tests.make_section import layered_section


def spots_of(adata: AnnData, section: np.ndarray | None = None) -> Spots:
    numbers = np.zeros(adata.n_obs, np.int64) if section is None else section
    return Spots(np.asarray(adata.obsm["spatial"]), numbers)


def library(adata: AnnData) -> np.ndarray:
    return np.asarray(adata.X.sum(axis=1)).ravel()


def ring(n: int) -> sp.csr_matrix:
    away = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    return sp.csr_matrix(((away == 1) | (away == n - 1)).astype(np.float32))


@pytest.fixture(scope="module")
def section() -> AnnData:
    return layered_section(seed=1)


def test_layers_are_found_with_and_without_their_number(section: AnnData) -> None:
    for wanted in (4, None):
        domains = find_domains(section.X, library(section), spots_of(section), n_neighbors=6, n_domains=wanted)
        assert domains.populations.n_populations == 4
        assert domains.populations.chosen == (wanted is None)
        assert adjusted_rand_score(section.obs["layer"], domains.populations.labels) > 0.85
        assert domains.embedding.shape[0] == section.n_obs
        sizes = np.bincount(domains.populations.labels)
        assert sizes.tolist() == sorted(sizes, reverse=True)


def test_the_same_seed_gives_the_same_domains(section: AnnData) -> None:
    first, second = (
        find_domains(section.X, library(section), spots_of(section), n_neighbors=6, n_domains=4, seed=3)
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.populations.labels, second.populations.labels)
    assert first.embedding.tobytes() == second.embedding.tobytes()


def test_sections_of_other_depth_share_their_domains() -> None:
    adatas = [layered_section(seed=1), layered_section(seed=2, name="B", depth=2.0)]
    counts = sp.vstack([a.X for a in adatas], format="csr")
    number = np.repeat([0, 1], 400)
    places = np.concatenate([a.obsm["spatial"] for a in adatas])
    sums = np.asarray(counts.sum(axis=1)).ravel()
    domains = find_domains(counts, sums, Spots(places, number), n_neighbors=6, n_domains=4)
    truth = np.concatenate([a.obs["layer"] for a in adatas])
    assert adjusted_rand_score(truth, domains.populations.labels) > 0.8


def test_views_do_not_see_a_shift_of_a_whole_section(section: AnnData) -> None:
    number = (np.arange(400) >= 200).astype(np.int64)
    graph = make_spot_graph(spots_of(section, number), n_neighbors=6)
    views = make_domain_views(section.X, library(section), graph, number)
    assert {view.shape[1] for view in views} == {8, 10, 12}
    for view in views:
        means = np.stack([view[number == k].mean(axis=0) for k in (0, 1)])
        # Centred per section before smoothing, which moves the mean a little at the edges.
        assert np.abs(means).max() < 0.2 * view.std(axis=0).max()


def test_factors_are_uncorrelated_and_slowest_first() -> None:
    rng = np.random.default_rng(0)
    slow, fast = np.sin(np.arange(200) * 2 * np.pi / 200), np.cos(np.arange(200) * np.pi)
    middle = np.sin(np.arange(200) * 2 * np.pi / 20)
    mixed = np.column_stack([slow, middle, fast]) @ rng.normal(size=(3, 3))
    centred = mixed - mixed.mean(axis=0)
    rotation = np.linalg.svd(centred, full_matrices=False)[2]
    factors = slow_factors(np.column_stack([centred @ rotation.T, np.zeros(200)]), ring(200))
    assert factors.shape == (200, 3), "a column that does not vary has no factor"
    for factor, truth in zip(factors.T, (slow, middle, fast), strict=True):
        assert abs(np.corrcoef(factor, truth)[0, 1]) > 0.99
    np.testing.assert_allclose(np.cov(factors.T), np.eye(3) * 200 / 199, atol=1e-6)


def test_distances_of_the_span_are_kept() -> None:
    rng = np.random.default_rng(0)
    pcs = rng.normal(size=(80, 5)) * [5, 4, 3, 2, 1]
    pcs -= pcs.mean(axis=0)
    kept = keep_metric(pcs, pcs @ rng.normal(size=(5, 5)))  # all five: nothing is lost
    np.testing.assert_allclose(kept @ kept.T, pcs @ pcs.T, atol=1e-8)
    pure = np.linalg.qr(pcs)[0] * [5, 4, 3, 2, 1]  # uncorrelated, as components are
    onto_two = keep_metric(pure, pure[:, [1, 0]] / pure[:, [1, 0]].std(axis=0))
    np.testing.assert_allclose(onto_two @ onto_two.T, pure[:, :2] @ pure[:, :2].T, atol=1e-8)


def test_smoothing_is_the_operator_of_the_graph(section: AnnData) -> None:
    graph = make_spot_graph(spots_of(section), n_neighbors=6)
    looped = graph + sp.eye_array(400, format="csr")
    assert abs(gcn_normalise(sp.csr_matrix(looped)) - gcn_normalise(sp.csr_matrix(looped)).T).max() < 1e-12
    shallow, deep = (make_domain_views(section.X, library(section), graph, np.zeros(400, np.int64))[i] for i in (0, 3))
    assert deep.std() < shallow.std(), "more steps leave less variance"


def test_the_mixture_sees_shape_where_distance_misleads() -> None:
    rng = np.random.default_rng(0)
    long = rng.normal(size=(300, 2)) * [1.5, 0.3]  # two parallel bands, longer than they are apart
    long[150:, 1] += 2
    truth = np.repeat([0, 1], 150)
    assert adjusted_rand_score(truth, fit_mixture(long, 2, np.arange(300), seed=0, restarts=30)) > 0.95
    part = np.arange(0, 300, 2)
    assert adjusted_rand_score(truth, fit_mixture(long, 2, part, seed=0, restarts=30)) > 0.95


def test_agreement_is_the_majority() -> None:
    truth = np.repeat([0, 1, 2], 30)
    other = np.random.default_rng(0).integers(0, 3, 90)
    found = agree([(truth + 1) % 3, (truth + 2) % 3, truth, other])
    assert adjusted_rand_score(truth, found) == 1


@pytest.mark.parametrize("wanted", [0, 401])
def test_absurd_numbers_are_refused(section: AnnData, wanted: int) -> None:
    with pytest.raises(TrainingError, match=f"{wanted} domains were asked for; with 400 spots"):
        find_domains(section.X, library(section), spots_of(section), n_neighbors=6, n_domains=wanted)


def test_one_domain_is_everything(section: AnnData) -> None:
    domains = find_domains(section.X, library(section), spots_of(section), n_neighbors=6, n_domains=1)
    assert set(domains.populations.labels) == {0}
