"""Batches are brought together by their paired cells, against brute force and batch effects that are known."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray
from rich.console import Console

from scrcl_train.batches import MIN_CELLS, N_PAIRED, describe_batches, find_pairs, mix_batches, move_cells
from scrcl_train.components import Components
from scrcl_train.features import Features, prepare_features
from scrcl_train.options import TrainOptions
from scrcl_train.pipeline import train
from scrcl_train.presets import get_preset
from scrcl_train.progress import TrainProgress
from scrcl_train.simulator import SimulatorConfig, simulate

CONFIG = get_preset("default", epochs=2)
OWN_TYPE = "B"
"""Of the first simulated batch alone."""


@pytest.fixture(scope="module")
def cells() -> tuple[sp.csr_matrix, NDArray[np.object_], NDArray[np.int64]]:
    """Counts, types and batches: a strong effect on every gene, and a type that one batch lacks."""
    adata = simulate(SimulatorConfig(n_cells=700, n_genes=400, batch_log_sd=0.7, n_subtype_markers=60), seed=3)
    types = adata.obs["cell_type"].astype(str).to_numpy(dtype=object)
    batch = adata.obs["batch"].cat.codes.to_numpy().astype(np.int64)
    kept = ~((types == OWN_TYPE) & (batch == 1))
    return sp.csr_matrix(adata.X)[kept], types[kept], batch[kept]


@pytest.fixture(scope="module")
def apart(cells: tuple[sp.csr_matrix, NDArray[np.object_], NDArray[np.int64]]) -> Features:
    return prepare_features(cells[0], CONFIG, batch=cells[2])


@pytest.fixture(scope="module")
def mixed(apart: Features, cells: tuple[sp.csr_matrix, NDArray[np.object_], NDArray[np.int64]]) -> Features:
    return mix_batches(apart, cells[2], CONFIG.graph)


def own_share(graph: sp.csr_matrix, groups: NDArray[np.generic], rows: NDArray[np.bool_]) -> float:
    """Share of the edges of these cells that stay in the cell's group."""
    edges = sp.coo_matrix(graph[rows])
    return float((groups[rows][edges.row] == groups[edges.col]).mean())


def unit(points: NDArray[np.floating]) -> NDArray[np.float32]:
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def test_pairs_are_each_others_nearest_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 6)) * 3
    first = unit(centres[rng.integers(3, size=90)] + rng.normal(size=(90, 6)))
    second = unit(centres[rng.integers(1, 4, size=70)] + 0.5 + rng.normal(size=(70, 6)))
    distance = np.array([[float(np.linalg.norm(a - b)) for b in second.astype(float)] for a in first.astype(float)])
    ranks_there = distance.argsort(axis=1).argsort(axis=1)
    ranks_back = distance.argsort(axis=0).argsort(axis=0)
    expected = (ranks_there < N_PAIRED) & (ranks_back < N_PAIRED)
    assert expected.any()
    assert (~expected).any()
    np.testing.assert_array_equal(find_pairs(first, second).toarray() > 0, expected)


def test_a_few_cells_of_each_batch_tell_how_all_of_it_moves(
    apart: Features,
    cells: tuple[sp.csr_matrix, NDArray[np.object_], NDArray[np.int64]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert apart.components is not None
    rows = [np.flatnonzero(cells[2] == code) for code in (0, 1)]
    before = apart.components.scores
    whole = move_cells(apart.components, rows) - before
    monkeypatch.setattr("scrcl_train.batches.MAX_SEARCHED", 150)
    drawn = move_cells(apart.components, rows) - before
    assert not np.array_equal(whole, drawn)
    assert np.linalg.norm(drawn - whole) < 0.5 * np.linalg.norm(whole)
    np.testing.assert_array_equal(drawn, move_cells(apart.components, rows) - before)


def test_a_known_shift_is_taken_back_though_the_batches_differ_in_types() -> None:
    """Centring each batch would leave types apart here: three quarters of one batch are a quarter of the other."""
    rng = np.random.default_rng(2)
    centres = np.zeros((2, 8))
    centres[0, 0], centres[1, 1] = 12.0, 12.0
    types = np.concatenate([rng.random(300) < 0.25, rng.random(300) < 0.75]).astype(int)
    batch = np.repeat([0, 1], 300)
    scores = centres[types] + rng.normal(size=(600, 8))
    scores[batch == 1, 2] += 8.0
    scores = (scores - scores.mean(axis=0)).astype(np.float32)
    components = Components(scores, np.eye(8, dtype=np.float32), np.ones(8, dtype=np.float32), 1.0)
    rows = [np.flatnonzero(batch == code) for code in (0, 1)]
    moved = move_cells(components, rows)

    def gap(values: NDArray[np.floating], kind: int) -> float:
        own = [values[(types == kind) & (batch == code)].mean(axis=0) for code in (0, 1)]
        return float(np.linalg.norm(own[1] - own[0]))

    for kind in (0, 1):
        assert gap(scores, kind) > 7
        assert gap(moved, kind) < 1.5
    between = np.linalg.norm(moved[types == 0].mean(axis=0) - moved[types == 1].mean(axis=0))
    assert between > 14, "types stay 17 apart, or nearly"


def test_the_graph_joins_batches_within_types(
    apart: Features, mixed: Features, cells: tuple[sp.csr_matrix, NDArray[np.object_], NDArray[np.int64]]
) -> None:
    _, types, batch = cells
    shared = types != OWN_TYPE
    assert own_share(apart.cell_graph, batch, shared) > 0.95
    assert own_share(mixed.cell_graph, batch, shared) < 0.7, "half of the shared cells are of each batch"
    assert own_share(mixed.cell_graph, types, shared) > own_share(apart.cell_graph, types, shared) - 0.02
    assert mixed.cell_graph.diagonal().sum() == 0
    assert (mixed.cell_graph != mixed.cell_graph.T).nnz == 0


def test_a_type_of_one_batch_alone_stays_apart(
    mixed: Features, cells: tuple[sp.csr_matrix, NDArray[np.object_], NDArray[np.int64]]
) -> None:
    _, types, _ = cells
    assert own_share(mixed.cell_graph, types, types == OWN_TYPE) > 0.8, "one cell in eleven is of the type"


def test_components_are_components_again(apart: Features, mixed: Features) -> None:
    assert apart.components is not None
    assert mixed.components is not None
    scores, loadings = mixed.components.scores.astype(float), mixed.components.loadings.astype(float)
    covariance = np.cov(scores.T)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-3 * covariance.max()
    assert np.all(np.diff(np.diag(covariance)) < 1e-4)
    np.testing.assert_allclose(loadings.T @ loadings, np.eye(loadings.shape[1]), atol=1e-4)
    assert mixed.inputs.shape == (len(scores), int(mixed.components.supported.sum()))
    np.testing.assert_array_equal(mixed.hvgs, apart.hvgs)


def test_the_same_batches_give_the_same_bytes(
    apart: Features, mixed: Features, cells: tuple[sp.csr_matrix, NDArray[np.object_], NDArray[np.int64]]
) -> None:
    """Whatever the batches are called."""
    again = mix_batches(apart, np.array(["a", "b"])[cells[2]], CONFIG.graph)
    assert again.inputs.tobytes() == mixed.inputs.tobytes()
    assert (again.cell_graph != mixed.cell_graph).nnz == 0


def test_nothing_changes_where_there_is_nothing_to_bring_together(apart: Features) -> None:
    n_cells = len(apart.inputs)
    one = np.zeros(n_cells, dtype=np.int64)
    tiny = one.copy()
    tiny[: MIN_CELLS - 1] = 1
    for batch, words in ((one, "all cells are of one"), (tiny, "fewer than two of at least 30 cells")):
        assert mix_batches(apart, batch, CONFIG.graph) is apart
        assert words in describe_batches(apart, batch)
    paper = replace(apart, components=None, neighbors=None)
    batch = np.arange(n_cells) % 2
    assert mix_batches(paper, batch, CONFIG.graph) is paper
    assert "choice of genes only" in describe_batches(paper, batch)
    assert describe_batches(apart, batch) == "Batches: 2 brought together."


def test_a_small_batch_is_left_and_said(
    apart: Features, cells: tuple[sp.csr_matrix, NDArray[np.object_], NDArray[np.int64]]
) -> None:
    batch = cells[2].copy()
    batch[:5] = 2
    assert describe_batches(apart, batch) == "Batches: 2 brought together; 1 with fewer than 30 cells left as they are."
    assert apart.components is not None
    rows = [np.flatnonzero(batch == code) for code in (0, 1)]
    moved = move_cells(apart.components, rows)
    np.testing.assert_array_equal(moved[:5], apart.components.scores[:5].astype(np.float64))
    assert np.abs(moved[5:] - apart.components.scores[5:]).max() > 1


def test_training_brings_batches_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--batch` reaches the teacher's graph; what follows the populations is not needed for that."""

    class EnoughError(Exception):
        pass

    seen: list[Features] = []

    def stop(features: Features, *_: object, **__: object) -> None:
        seen.append(features)
        raise EnoughError

    monkeypatch.setattr("scrcl_train.pipeline.fit", stop)
    adata = simulate(SimulatorConfig(n_cells=300, n_genes=200, batch_log_sd=0.7), seed=4)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    said = io.StringIO()
    for key in (None, "batch"):
        with pytest.raises(EnoughError):
            train(
                tmp_path / "cells.h5ad",
                tmp_path / "model",
                TrainOptions(config=CONFIG, batch_key=key, run_dir=tmp_path / str(key)),
                progress=TrainProgress(Console(file=said)),
            )
    assert "Batches: 2 brought together." in said.getvalue()
    batch = adata.obs["batch"].astype(str).to_numpy()
    without, with_batches = (own_share(f.cell_graph, batch, np.ones(300, dtype=bool)) for f in seen)
    assert without > 0.9
    assert with_batches < 0.7
