"""`scrcl_infer.neighbors` against scikit-learn's exhaustive search, and against itself with other block sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from scrcl_infer import neighbors
from scrcl_infer.neighbors import SCALE, find_neighbors, round_rows

K = 15


def unit(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def like_cells(n: int, *, n_types: int = 9, dim: int = 64, seed: int = 0) -> NDArray[np.float32]:
    """Unit rows of types of unequal size, each spread along a few directions, as encoders give them."""
    rng = np.random.default_rng(seed)
    of = rng.choice(n_types, size=n, p=rng.dirichlet(np.ones(n_types) * 2))
    spread = rng.normal(size=(n_types, 5, dim)) * 0.25
    return unit(rng.normal(size=(n_types, dim))[of] + np.einsum("nk,nkd->nd", rng.normal(size=(n, 5)), spread[of]))


def recall(found: NDArray[np.int32], embedding: NDArray[np.float32]) -> float:
    search = NearestNeighbors(n_neighbors=found.shape[1], metric="cosine", algorithm="brute").fit(embedding)
    _, truth = search.kneighbors()
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), truth.tolist(), strict=True)]))


def test_small_files_are_searched_exhaustively() -> None:
    embedding = like_cells(500)
    rows = round_rows(embedding)
    found = find_neighbors(rows, n_neighbors=K)
    assert recall(found, embedding) > 0.99  # the rest are ties of the rounding
    products = rows.astype(np.int64) @ rows.astype(np.int64).T
    np.fill_diagonal(products, -(2**40))
    np.testing.assert_array_equal(found, np.argsort(-products, axis=1, kind="stable")[:, :K])


@pytest.mark.parametrize("seed", [0, 1])
def test_the_search_by_lists_finds_nearly_all(seed: int) -> None:
    embedding = like_cells(2500, seed=seed)
    found = find_neighbors(round_rows(embedding), n_neighbors=K, exact_cells=500)
    assert recall(found, embedding) > 0.9
    assert not (found == np.arange(len(found))[:, None]).any()
    assert all(len(set(row)) == K for row in found.tolist())


@pytest.mark.realdata
def test_the_search_by_lists_on_real_cells(real_data: Callable[[str], Path]) -> None:
    from scrcl_infer import load

    embedding = load("human-pbmc", threads=1).assign(real_data("pbmc3k")).embedding
    assert recall(find_neighbors(round_rows(embedding), n_neighbors=K, exact_cells=100), embedding) > 0.95


def test_block_sizes_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = round_rows(like_cells(3000))
    whole = [find_neighbors(rows, n_neighbors=K, exact_cells=n) for n in (100, 5000)]
    monkeypatch.setattr(neighbors, "ENTRIES", 12_345)
    monkeypatch.setattr(neighbors, "GROUP", 7)
    for found, exact_cells in zip(whole, (100, 5000), strict=True):
        np.testing.assert_array_equal(find_neighbors(rows, n_neighbors=K, exact_cells=exact_cells), found)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 60), st.integers(1, 20), st.integers(0, 1000))
def test_every_cell_has_its_neighbours_in_any_file(n: int, k: int, seed: int) -> None:
    """Also with many cells in one place, also by lists: no cell is its own, and none is listed twice."""
    rng = np.random.default_rng(seed)
    rows = round_rows(unit(rng.normal(size=(5, 3)))[rng.integers(0, 5, n)])
    for exact_cells in (0, 100):
        found = find_neighbors(rows, n_neighbors=k, exact_cells=exact_cells)
        assert found.shape == (n, max(0, min(k, n - 1)))
        for cell, row in enumerate(found.tolist()):
            assert len({cell, *row}) == len(row) + 1


def test_of_equally_near_cells_the_earlier_comes_first() -> None:
    rows = round_rows(np.tile(unit(np.ones((1, 4))), (10, 1)))
    found = find_neighbors(rows, n_neighbors=3)
    assert found[:2].tolist() == [[1, 2, 3], [0, 2, 3]]
    assert found[9].tolist() == [0, 1, 2]


def test_the_order_of_the_cells_does_not_matter_where_all_pairs_are_compared() -> None:
    rows = round_rows(like_cells(300))
    order = np.random.default_rng(0).permutation(300)
    found, shuffled = (find_neighbors(r, n_neighbors=1)[:, 0] for r in (rows, rows[order]))
    products = rows.astype(np.int64) @ rows.T.astype(np.int64)
    np.testing.assert_array_equal(products[order, order[shuffled]], products[order, found[order]])


def test_long_lists_are_cut() -> None:
    rows = np.concatenate([np.repeat(round_rows(like_cells(1)), 2500, axis=0), round_rows(like_cells(100, seed=3))])
    order, starts, middles = neighbors._make_lists(rows)
    assert sorted(order.tolist()) == list(range(2600))
    assert np.diff(starts).min() > 0
    assert np.diff(starts).max() <= neighbors.LONGEST * 51
    assert len(middles) == len(starts) - 1


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 512), st.integers(0, 100))
def test_products_of_rounded_rows_are_exact(dim: int, seed: int) -> None:
    a, b = round_rows(unit(np.random.default_rng(seed).normal(size=(2, dim))))
    assert np.abs(a.astype(np.int64)) @ np.abs(b.astype(np.int64)) < 2**53
    assert float(a.astype(np.float64) @ b.astype(np.float64)) == int(a.astype(np.int64) @ b.astype(np.int64))
    assert abs(np.linalg.norm(a.astype(np.float64)) - SCALE) < np.sqrt(dim)
