"""Moran's I against the double sum, and the genes that it chooses."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from scrcl_infer.spatial import Spots, make_spot_graph
from scrcl_train.autocorrelation import centre, choose_autocorrelated, compute_autocorrelation
from scrcl_train.config import FeatureConfig, GraphConfig, TrainConfig
from scrcl_train.features import prepare_features
from scrcl_train.presets import get_preset
from tests.make_section import layered_section


def line_graph(n: int) -> sp.csr_matrix:
    return sp.csr_matrix(np.eye(n, k=1) + np.eye(n, k=-1))


def test_it_is_the_double_sum_whatever_the_chunk() -> None:
    rng = np.random.default_rng(0)
    graph, values = line_graph(30).toarray(), rng.poisson(1.0, (30, 600)).astype(np.float32)
    centred = values - values.mean(axis=0, dtype=np.float64)
    expected = [
        30 / graph.sum() * sum(graph[i, j] * v[i] * v[j] for i in range(30) for j in range(30)) / (v @ v)
        for v in centred[:, [0, 255, 256, 599]].T
    ]
    for stored in (values, sp.csr_matrix(values)):
        found = compute_autocorrelation(stored, sp.csr_matrix(graph))
        np.testing.assert_allclose(found[[0, 255, 256, 599]], expected, rtol=1e-6)


def test_known_values() -> None:
    graph = line_graph(100)
    ramp, alternating, constant = np.arange(100.0), np.arange(100) % 2, np.ones(100)
    found = compute_autocorrelation(np.column_stack([ramp, alternating, constant]), graph)
    assert found[0] > 0.95
    assert found[1] == pytest.approx(-1.0, abs=0.02)
    assert found[2] == 0


def test_a_difference_between_sections_counts_for_nothing() -> None:
    rng = np.random.default_rng(1)
    section = np.repeat([0, 1], 200)
    values = rng.normal(size=(400, 1)) + 10 * section[:, None]
    graph = make_spot_graph(Spots(rng.random((400, 2)), section), n_neighbors=6)
    assert compute_autocorrelation(values, graph)[0] > 0.9
    assert abs(compute_autocorrelation(values, graph, section)[0]) < 0.15
    np.testing.assert_allclose(centre(values, section)[200:].mean(), 0, atol=1e-12)
    assert centre(values, None).mean() == pytest.approx(0, abs=1e-12)


def test_the_genes_of_layers_are_chosen() -> None:
    adata = layered_section()
    graph = make_spot_graph(Spots(adata.obsm["spatial"], np.zeros(400, np.int64)), n_neighbors=6)
    chosen = choose_autocorrelated(adata.X.log1p(), graph, 30)
    assert chosen.tolist() == sorted(chosen)
    assert np.mean(chosen < 40) > 0.8, "the first 40 genes mark layers"
    assert len(choose_autocorrelated(adata.X, graph, 500)) == 120


def test_features_of_the_spatial_preset_are_those_genes() -> None:
    adata = layered_section()
    preset = get_preset("spatial")
    config = TrainConfig(
        features=FeatureConfig(n_hvgs=30, hvg_flavor="moran"), graph=preset.graph, teacher=preset.teacher
    )
    features = prepare_features(adata.X, config, spatial=adata.obsm["spatial"])
    assert np.mean(features.hvgs < 40) > 0.8
    inner = np.asarray(features.cell_graph.sum(axis=1)).ravel().reshape(20, 20)[1:-1, 1:-1]
    assert np.median(inner) == 6
    assert GraphConfig().space == "scaled_pcs"
