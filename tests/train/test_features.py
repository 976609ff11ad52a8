"""Features against scanpy and scikit-learn on simulated counts."""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.decomposition import PCA

from scrcl_infer.errors import InputError
from scrcl_train.components import Components, principal_components
from scrcl_train.config import FeatureConfig, GraphConfig, TeacherConfig, TrainConfig
from scrcl_train.features import Features, column_moments, prepare_features, standardise
from scrcl_train.graphs import knn_graph, spot_graph

N_CELLS, N_GENES = 120, 90


def make_counts(seed: int = 0) -> sp.csr_matrix:
    """Three types, 90 genes of differing level, the last two expressed by no cell."""
    rng = np.random.default_rng(seed)
    level = rng.lognormal(0, 1, size=(3, N_GENES))
    level[:, -2:] = 0
    depth = rng.lognormal(0, 0.4, size=(N_CELLS, 1))
    return sp.csr_matrix(rng.poisson(level[rng.integers(0, 3, N_CELLS)] * depth).astype(np.float32))


def make_config(*, graph: GraphConfig | None = None, **features: object) -> TrainConfig:
    settings = {"n_hvgs": 30, "n_pcs": 8, "values": "pcs", **features}
    space = "scaled_pcs" if settings["values"] == "pcs" else "log_hvgs"
    return TrainConfig(
        features=FeatureConfig(**settings),  # type: ignore[arg-type]
        teacher=TeacherConfig(refinement="programs" if settings["values"] == "pcs" else "paper"),
        graph=graph or GraphConfig(space=space, n_neighbors=5, n_graph_pcs=6),  # type: ignore[arg-type]
    )


def get_components(features: Features) -> Components:
    assert features.components is not None
    return features.components


def scanpy_steps(counts: sp.csr_matrix, batch: np.ndarray | None = None) -> anndata.AnnData:
    """The same steps by scanpy: normalise, log, choose 30 genes, standardise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import scanpy

        table = anndata.AnnData(counts.copy())
        scanpy.pp.normalize_total(table, target_sum=1e4)
        scanpy.pp.log1p(table)
        table.layers["log"] = table.X.copy()
        scanpy.pp.filter_genes(table, min_cells=3)
        if batch is not None:
            table.obs["batch"] = batch
            table.obs["batch"] = table.obs["batch"].astype("category")
        scanpy.pp.highly_variable_genes(table, n_top_genes=30, batch_key=None if batch is None else "batch")
        table = table[:, table.var["highly_variable"]].copy()
        scanpy.pp.scale(table, max_value=2)
    return table


def test_genes_and_components_are_scanpys() -> None:
    counts = make_counts()
    expected = scanpy_steps(counts)
    features = prepare_features(counts, make_config(max_value=2.0))
    np.testing.assert_array_equal(features.hvgs, expected.var_names.astype(int))
    log = expected.layers["log"].toarray()
    np.testing.assert_allclose(features.mean, log.mean(0), rtol=1e-5)
    np.testing.assert_allclose(features.sd, log.std(0, ddof=1), rtol=1e-5)
    scores = PCA(8, svd_solver="full").fit_transform(expected.X)
    components = get_components(features)
    np.testing.assert_allclose(np.abs(components.scores), np.abs(scores), rtol=1e-3, atol=1e-3)
    centred = expected.X - expected.X.mean(0)
    np.testing.assert_allclose(centred @ components.loadings, components.scores, atol=1e-3)


def test_genes_by_batch_are_scanpys() -> None:
    counts = make_counts()
    batch = np.repeat(["one", "two"], N_CELLS // 2)
    features = prepare_features(counts, make_config(), batch=batch)
    np.testing.assert_array_equal(features.hvgs, scanpy_steps(counts, batch).var_names.astype(int))


def test_components_are_scikit_learns_up_to_sign() -> None:
    matrix = np.random.default_rng(1).normal(size=(50, 12)).astype(np.float32) @ np.diag(np.arange(1, 13))
    matrix = matrix.astype(np.float32)
    expected = PCA(5, svd_solver="full").fit(matrix)
    scores, loadings = principal_components(matrix, 5)
    np.testing.assert_allclose((matrix - matrix.mean(0)) @ loadings, scores, atol=1e-3)
    np.testing.assert_allclose(np.abs(scores), np.abs(expected.transform(matrix)), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(principal_components(sp.csr_matrix(matrix), 5)[0], scores, atol=1e-3)
    assert principal_components(matrix[:4], 50)[0].shape == (4, 3)


def test_signs_follow_from_the_data_alone() -> None:
    matrix = np.random.default_rng(2).normal(size=(40, 6)).astype(np.float32)
    scores, _ = principal_components(matrix, 3)
    order = np.random.default_rng(3).permutation(40)
    np.testing.assert_allclose(principal_components(matrix[order], 3)[0], scores[order], atol=1e-4)


@pytest.mark.parametrize("values", ["counts", "scaled_uncentred"])
def test_the_papers_inputs(values: str) -> None:
    counts = make_counts()
    features = prepare_features(counts, make_config(values=values))
    chosen = counts[:, features.hvgs].toarray()
    log = np.log1p(chosen / np.asarray(counts.sum(axis=1)) * 1e4)
    expected = {"counts": chosen, "scaled_uncentred": np.minimum(log / log.std(0, ddof=1), 10)}[values]
    found = features.inputs.toarray() if sp.issparse(features.inputs) else features.inputs
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert sp.issparse(features.inputs) == (values == "counts")
    assert (features.components, features.neighbors) == (None, None)
    wanted = knn_graph(log, n_neighbors=5, cosine=True)
    assert (features.cell_graph != wanted).nnz == 0


def test_the_input_is_what_the_gene_correlations_support_at_one_scale() -> None:
    features = prepare_features(make_counts(), make_config())
    components = get_components(features)
    variance = components.scores.var(0)
    support = np.maximum(1 - components.noise / variance, 0)  # (8,)
    np.testing.assert_allclose(components.support, support, atol=1e-5)
    held = support > 0
    assert 0 < held.sum() < len(held)
    refined = (components.scores * np.sqrt(support))[:, held]
    np.testing.assert_allclose(features.inputs, refined * 2 / refined.std(0).mean(), rtol=1e-3, atol=1e-4)
    profiles = components.loadings[:, held] * refined.std(0)
    unit = profiles / np.linalg.norm(profiles, axis=1, keepdims=True)
    nearest = np.argsort(-(unit @ unit.T), axis=1)[:, :10]
    directed = np.zeros((30, 30))
    np.put_along_axis(directed, nearest, 1, axis=1)
    np.testing.assert_array_equal(features.gene_graph.toarray(), np.maximum(directed, directed.T))


def test_graphs_on_components_and_on_spots() -> None:
    counts = make_counts()
    features = prepare_features(counts, make_config())
    components, neighbors = get_components(features), features.neighbors
    assert neighbors is not None
    for found, points in ((neighbors.plain, components.scores[:, :6]), (neighbors.refined, components.refined)):
        unit = points / np.linalg.norm(points, axis=1, keepdims=True)
        similarity = unit @ unit.T
        np.fill_diagonal(similarity, -2)
        wanted = np.argsort(-similarity, axis=1)[:, :5]
        np.testing.assert_array_equal(np.sort(found, axis=1), np.sort(wanted, axis=1))
    assert (features.cell_graph != knn_graph(components.refined, n_neighbors=5, cosine=True)).nnz == 0
    spots = np.random.default_rng(4).random((N_CELLS, 2))
    section = np.repeat([1, 2, 3], N_CELLS // 3)
    config = make_config(graph=GraphConfig(space="spots", n_neighbors=5))
    on_spots = prepare_features(counts, config, spatial=spots, section=section)
    assert (on_spots.cell_graph != spot_graph(spots, n_neighbors=5, section=section)).nnz == 0
    assert on_spots.neighbors is None


@pytest.mark.parametrize("n_cells", [3, 4, 7])
def test_a_handful_of_cells_is_enough(n_cells: int) -> None:
    features = prepare_features(make_counts()[:n_cells], make_config(min_cells=1))
    inputs = np.asarray(features.inputs)
    assert inputs.shape[0] == n_cells
    assert inputs.shape[1] >= 1
    assert np.isfinite(inputs).all()


def test_cells_that_are_all_alike_give_finite_features() -> None:
    counts = sp.csr_matrix(np.tile(make_counts()[[0]].toarray(), (12, 1)))
    features = prepare_features(counts, make_config(n_hvgs=None))
    np.testing.assert_allclose(features.inputs, 0, atol=1e-5)


def test_same_data_same_features() -> None:
    first, second = (prepare_features(make_counts(), make_config(), seed=3) for _ in range(2))
    for name in ("hvgs", "inputs", "mean", "sd"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()
    assert get_components(first).scores.tobytes() == get_components(second).scores.tobytes()
    for name in ("cell_graph", "gene_graph"):
        assert (getattr(first, name) != getattr(second, name)).nnz == 0


def test_all_expressed_genes_are_kept_when_asked() -> None:
    features = prepare_features(make_counts(), make_config(n_hvgs=None))
    assert 30 < features.hvgs.size < N_GENES
    assert features.hvgs.max() < N_GENES - 2


def test_constant_gene_is_left_at_zero() -> None:
    log = sp.csr_matrix(np.array([[1.0, 2.0], [1.0, 0.0], [1.0, 4.0]], dtype=np.float32))
    mean, sd = column_moments(log)
    np.testing.assert_allclose(sd, [1.0, 2.0])
    np.testing.assert_allclose(standardise(log, mean, sd, max_value=10.0)[:, 0], 0.0)


def test_bad_input_says_what_to_do() -> None:
    counts = make_counts()
    empty = counts.tolil()
    empty[7] = 0
    with pytest.raises(InputError, match="first is row 7"):
        prepare_features(sp.csr_matrix(empty), make_config())
    with pytest.raises(InputError, match="at least 3 cells; found 2"):
        prepare_features(counts[:2], make_config())
    with pytest.raises(InputError, match="expressed by at least 200 cells"):
        prepare_features(counts, make_config(min_cells=200))
    spots = make_config(graph=GraphConfig(space="spots"))
    with pytest.raises(InputError, match=r"obsm\['spatial'\]"):
        prepare_features(counts, spots)
    with pytest.raises(InputError, match="120 spots but 3 coordinates"):
        prepare_features(counts, spots, spatial=np.zeros((3, 2)))
