"""The consensus tree on data whose groups are known, and its parts against scipy and plain loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from sklearn.metrics import adjusted_rand_score

from scrcl_train import consensus
from scrcl_train.components import Components, Neighbors
from scrcl_train.consensus import (
    ConsensusTree,
    average_neighbors,
    build_tree,
    cut_levels,
    make_embedding_views,
    make_views,
    unit_rows,
)


def make_groups(
    sizes: tuple[int, ...], *, dim: int = 12, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Tight groups in orthogonal directions."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(len(sizes)), sizes)
    middle = np.linalg.qr(rng.normal(size=(dim, dim)))[0][: len(sizes)]
    return (middle[truth] + rng.normal(0, 0.08, (truth.size, dim))).astype(np.float32), truth


@pytest.mark.parametrize("sizes", [(150, 100, 50), (240, 20, 20), (60, 60, 60, 60, 60)])
def test_known_groups_are_branches_and_are_counted(sizes: tuple[int, ...]) -> None:
    embedding, truth = make_groups(sizes)
    tree = build_tree(make_embedding_views(embedding))
    assert adjusted_rand_score(truth, tree.cut(len(sizes))) > 0.99
    assert tree.n_leaves == truth.size // 3


def test_a_view_that_shows_nothing_does_not_hide_what_the_other_shows() -> None:
    embedding, truth = make_groups((80, 60, 40))
    views = make_embedding_views(embedding)
    noise = np.random.default_rng(1).normal(size=embedding.shape)
    tree = build_tree(consensus.Views((views.alike, noise), views.alike, views.scores, views.neighbors))
    assert adjusted_rand_score(truth, tree.cut(3)) > 0.9


def test_heights_are_the_shares_of_clusterings_that_keep_groups_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """One run, counted cell by cell."""
    embedding, _ = make_groups((40, 30), dim=5)
    views = make_embedding_views(embedding)
    monkeypatch.setattr(consensus, "N_RUNS", 1)
    tree = build_tree(views, seed=4)
    rng = np.random.default_rng(4)
    base, _ = consensus._overcluster(views.alike, 23, rng)
    small, centres = consensus._overcluster(views.clustered[0], min(int(rng.integers(40, 150)), 70 // 4), rng)
    inner = linkage(unit_rows(centres), "average", metric="cosine")
    apart = np.zeros((23, 23))
    for level in range(4, 40):
        merged = fcluster(inner, min(level, len(centres)), "maxclust")[small]
        for a in range(23):
            for b in range(23):
                apart[a, b] += np.not_equal.outer(merged[base == a], merged[base == b]).mean() / 36
    wanted = linkage(apart[np.triu_indices(23, 1)], "average")
    np.testing.assert_array_equal(tree.base, base)
    np.testing.assert_allclose(tree.merges[:, 2], wanted[:, 2], atol=1e-9)


def test_same_seed_same_tree() -> None:
    cloud = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    views = make_embedding_views(cloud)
    first, second, other = (build_tree(views, seed=seed) for seed in (3, 3, 4))
    assert first.merges.tobytes() == second.merges.tobytes()
    assert first.base.tobytes() == second.base.tobytes()
    assert first.merges.tobytes() != other.merges.tobytes()


@pytest.mark.parametrize("n_cells", [2, 3, 5, 9])
def test_a_handful_of_cells_makes_a_tree(n_cells: int) -> None:
    cloud = np.random.default_rng(0).normal(size=(n_cells, 3)).astype(np.float32)
    tree = build_tree(make_embedding_views(cloud))
    assert np.array_equal(np.unique(tree.cut(tree.n_leaves)), np.arange(tree.n_leaves))
    assert 1 <= tree.estimate_number() <= tree.n_leaves


def test_more_leaves_than_usual_when_asked() -> None:
    cloud = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    assert build_tree(make_embedding_views(cloud), min_leaves=45).n_leaves == 45


def test_cells_all_alike_are_one_leaf() -> None:
    tree = build_tree(make_embedding_views(np.ones((60, 4), dtype=np.float32)))
    assert (tree.n_leaves, tree.estimate_number()) == (1, 1)
    assert not tree.cut(1).any()


def test_many_cells_are_fitted_on_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    embedding, truth = make_groups((300, 200, 100))
    monkeypatch.setattr(consensus, "MAX_FITTED", 450)
    assert adjusted_rand_score(truth, build_tree(make_embedding_views(embedding)).cut(3)) > 0.99


def test_the_number_is_one_more_than_the_high_merges() -> None:
    merges = np.array([[0, 1, 0.1, 2], [2, 3, 0.79, 2], [5, 6, 0.8, 4], [4, 7, 0.95, 5]])
    assert ConsensusTree(np.repeat(np.arange(5), 5), merges).estimate_number() == 3
    merges[:, 2] = [0.1, 0.2, 0.3, 0.4]
    assert ConsensusTree(np.repeat(np.arange(5), 5), merges).estimate_number() == 2


@pytest.mark.parametrize(("n_strange", "number"), [(4, 2), (5, 3)])
def test_a_few_strange_cells_do_not_count(n_strange: int, number: int) -> None:
    """Of 1,000 cells five count."""
    base = np.repeat([0, 1, 2], [600, 400 - n_strange, n_strange])
    merges = np.array([[0, 1, 0.9, 2], [2, 3, 1.0, 3]])
    assert ConsensusTree(base, merges).estimate_number() == number


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(2, 20))
def test_cuts_are_scipys(seed: int, n: int) -> None:
    merges = linkage(np.random.default_rng(seed).normal(size=(n, 3)), "average")
    levels = list(range(1, n + 1))
    for level, found in zip(levels, cut_levels(merges, levels), strict=True):
        assert adjusted_rand_score(fcluster(merges, level, "maxclust"), found) == pytest.approx(1)


@given(st.integers(2, 15))
def test_cuts_have_the_asked_number_of_groups_even_where_heights_tie(n: int) -> None:
    merges = linkage(np.ones(n * (n - 1) // 2), "average")
    for level, found in enumerate(cut_levels(merges, list(range(1, n + 1))), start=1):
        assert np.array_equal(np.unique(found), np.arange(level))


def test_means_over_neighbours_are_plain_means() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 3))
    neighbors = np.stack([rng.choice(np.delete(np.arange(20), i), 4, replace=False) for i in range(20)])
    wanted = [values[[i, *neighbors[i]]].mean(axis=0) for i in range(20)]
    np.testing.assert_allclose(average_neighbors(values, neighbors), wanted)


def test_views_of_components() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(30, 4)).astype(np.float32)
    components = Components(scores, np.eye(4, dtype=np.float32), np.array([0.9, 0.5, 0.1, 0], dtype=np.float32), 1.0)
    plain, refined = (rng.integers(0, 30, (30, 5)) for _ in range(2))
    learned = rng.normal(size=(30, 6))
    views = make_views(components, Neighbors(plain, refined), learned)
    shrunk, half = scores * components.support, scores * np.sqrt(components.support)
    wanted = [shrunk, half, average_neighbors(shrunk, refined), average_neighbors(half, refined)]
    for found, view in zip(views.clustered, wanted, strict=True):
        np.testing.assert_allclose(found, view, rtol=1e-6)
    np.testing.assert_allclose(views.alike, average_neighbors(scores, plain), rtol=1e-6)
    assert views.neighbors is plain
    assert views.learned is learned
