"""`scrcl_infer.vote`: against a loop over all cells with scikit-learn's neighbours, and what it must not do."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors

from scrcl_infer import apply_assignment
from scrcl_infer.bundle import write_bundle
from scrcl_infer.contract import Bundle, LabelLevel, SpatialSpec
from scrcl_infer.errors import InputError
from scrcl_infer.neighbors import round_rows
from scrcl_infer.pipeline import Model, load
from scrcl_infer.result import AssignedBlock, AssignOptions
from scrcl_infer.target import Target
from scrcl_infer.vote import NEIGHBORS, Ballot, vote
from tests.infer.test_neighbors import like_cells, unit
from tests.infer.test_pipeline import EMPTY, query, same
from tests.make_bundle import tiny_bundle

VOTE = AssignOptions(vote=True)


def random_posterior(n: int, n_types: int = 4, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).dirichlet(np.ones(n_types), n).astype(np.float32)


def by_loop(
    rows: NDArray[np.int16], posterior: NDArray[np.float32], cell_type: NDArray[np.int32]
) -> NDArray[np.float64]:
    search = NearestNeighbors(n_neighbors=NEIGHBORS, metric="cosine", algorithm="brute").fit(rows.astype(np.float64))
    nearest = [set(row) for row in search.kneighbors(return_distance=False).tolist()]
    pooled = posterior.astype(np.float64)
    for i in np.flatnonzero(cell_type >= 0):
        voters = [j for j in nearest[i] if i in nearest[j] and cell_type[j] >= 0]
        pool = np.sqrt(posterior[i].astype(np.float64) * posterior[[i, *voters]].astype(np.float64).mean(axis=0))
        pooled[i] = pool / pool.sum()
    return pooled


def test_the_vote_is_the_pool_of_mutual_neighbours() -> None:
    rows, posterior = round_rows(like_cells(300)), random_posterior(300)
    cell_type = np.where(posterior.max(axis=1) > 0.45, posterior.argmax(axis=1), -1).astype(np.int32)
    assert 0 < (cell_type < 0).sum() < 150
    pooled = vote(rows, posterior, cell_type)
    np.testing.assert_allclose(pooled, by_loop(rows, posterior, cell_type), atol=1e-6)
    np.testing.assert_allclose(pooled.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(pooled[cell_type < 0], posterior[cell_type < 0])


def test_an_uncertain_cell_follows_its_neighbours_and_a_certain_one_does_not() -> None:
    rows = round_rows(like_cells(12, n_types=1))
    posterior = np.tile(np.array([[0.9, 0.1]], np.float32), (12, 1))
    posterior[0], posterior[1] = (0.45, 0.55), (0.02, 0.98)
    pooled = vote(rows, posterior, posterior.argmax(axis=1).astype(np.int32))
    assert pooled.argmax(axis=1).tolist() == [0, 1] + [0] * 10


def test_unknown_cells_neither_spread_nor_vanish() -> None:
    """Among unknown cells a cell keeps its own posterior to the last bit, though a known one lies farther away."""
    rows, posterior = round_rows(like_cells(40, n_types=1)), random_posterior(40)
    cell_type = np.full(40, -1, dtype=np.int32)
    cell_type[7] = posterior[7].argmax()
    np.testing.assert_array_equal(vote(rows, posterior, cell_type), posterior)


def test_a_rare_type_is_not_outvoted_by_a_common_one() -> None:
    """Three cells off a cloud of two hundred: their nearest cells are of the cloud, but not the other way round."""
    rng = np.random.default_rng(0)
    cloud, off = rng.normal(size=(200, 8)) * 0.02, rng.normal(size=(3, 8)) * 0.02
    rows = round_rows(unit(np.concatenate([cloud + np.eye(8)[0], off + np.eye(8)[0] * 0.8 + np.eye(8)[1] * 0.6])))
    posterior = np.tile(np.array([[0.95, 0.05]], np.float32), (203, 1))
    posterior[200:] = (0.35, 0.65)
    pooled = vote(rows, posterior, posterior.argmax(axis=1).astype(np.int32))
    assert pooled.argmax(axis=1).tolist() == [0] * 200 + [1] * 3


def blocks_of(n: int, cuts: list[int]) -> list[tuple[AssignedBlock, NDArray[np.float32]]]:
    embedding, posterior = like_cells(n), random_posterior(n)
    cell_type = np.where(posterior.max(axis=1) > 0.4, posterior.argmax(axis=1), -1).astype(np.int32)
    edges = [0, *sorted(cuts), n]
    made = []
    for start, stop in itertools.pairwise(edges):
        r = slice(start, stop)
        top = np.sort(posterior[r], axis=1)
        block = AssignedBlock(
            start, np.zeros(stop - start, np.int32), cell_type[r], top[:, -1], top[:, -1] - top[:, -2],
            embedding[r], embedding[r, :2],
        )  # fmt: skip
        made.append((block, posterior[r]))
    return made


def count(blocks: list[tuple[AssignedBlock, NDArray[np.float32]]], n: int) -> list[AssignedBlock]:
    with Ballot(n, n_types=4, dim=64) as ballot:
        for block, posterior in blocks:
            ballot.add(block, posterior)
        return [block for block, _ in ballot.count()]


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 120), max_size=6))
def test_how_the_file_is_cut_does_not_matter(cuts: list[int]) -> None:
    whole, parts = count(blocks_of(120, []), 120), count(blocks_of(120, cuts), 120)
    before = blocks_of(120, [])[0][0]
    for name in ("cell_type", "confidence", "margin", "embedding", "map"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        assert joined.dtype == getattr(before, name).dtype
        np.testing.assert_array_equal(joined, getattr(whole[0], name))
    np.testing.assert_array_equal(whole[0].embedding, before.embedding)
    np.testing.assert_array_equal(whole[0].cell_type < 0, before.cell_type < 0)
    assert (whole[0].cell_type != before.cell_type).any()
    assert (whole[0].margin >= 0).all()


def test_coarser_levels_follow_the_vote() -> None:
    """The probability of a coarse name is the sum over its types after the vote; unknown cells keep their own."""
    level = LabelLevel("broad", ("x", "x", "y", "y"), ("", "", "", ""))
    (block, posterior), *_ = blocks_of(120, [])
    own = np.full((120, 1), 0.25, dtype=np.float32)
    with Ballot(120, n_types=4, dim=64, levels=(level,)) as ballot:
        ballot.add(dataclasses.replace(block, level_confidence=own), posterior)
        ((voted, pooled),) = ballot.count()
    for i, of_type in enumerate(voted.cell_type):
        family = pooled[i, :2].sum() if of_type < 2 else pooled[i, 2:].sum()
        assert voted.level_confidence[i, 0] == pytest.approx(0.25 if of_type < 0 else family, abs=1e-6)


def test_a_full_temporary_folder_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with Ballot(10, n_types=4, dim=64) as ballot:
        ballot._file.close()
        monkeypatch.setattr(ballot, "_file", open("/dev/full", "wb"))  # noqa: SIM115, PTH123
        with pytest.raises(InputError, match=r"No space left.*TMPDIR.*--vote"):
            ballot.add(*blocks_of(10, [])[0])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(write_bundle(tiny_bundle(), tmp_path_factory.mktemp("models") / "tiny"), threads=1)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("query") / "new.h5ad"
    query(n=200).write_h5ad(path)
    return path


def test_only_types_and_their_probabilities_change(model: Model, path: Path) -> None:
    alone, voted = model.assign(path), model.assign(path, options=VOTE)
    for name in ("obs_names", "population", "embedding", "map"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(voted, name))
    np.testing.assert_array_equal(alone.cell_type == "unknown", voted.cell_type == "unknown")
    changed = int((alone.cell_type != voted.cell_type).sum())
    assert voted.summary.extra["vote"] == {"n_neighbors": NEIGHBORS, "n_changed": changed}
    assert changed > 0
    assert (voted.cell_type[EMPTY], voted.confidence[EMPTY]) == ("unknown", 0)
    assert "vote" not in alone.summary.extra


def test_blocks_and_threads_do_not_matter(model: Model, path: Path) -> None:
    voted = model.assign(path, options=VOTE)
    for options in (AssignOptions(vote=True, block_size=7), AssignOptions(vote=True, threads=2)):
        same(model.assign(path, options=options), voted)


def test_a_file_gets_the_same_answers_and_a_note(model: Model, path: Path, tmp_path: Path) -> None:
    voted = model.assign(path, options=VOTE)
    model.assign_file(path, Target(tmp_path / "out.h5ad"), options=VOTE)
    written, added = ad.read_h5ad(tmp_path / "out.h5ad"), ad.read_h5ad(path)
    apply_assignment(added, voted)
    for adata in (written, added):
        assert adata.obs["scrcl_cell_type"].tolist() == voted.cell_type.tolist()
        np.testing.assert_array_equal(adata.obs["scrcl_confidence"], voted.confidence)
        np.testing.assert_array_equal(adata.obsm["X_scrcl"], voted.embedding)
        assert bool(adata.uns["scrcl"]["vote"])
        assert adata.uns["scrcl"]["vote_neighbors"] == NEIGHBORS
    model.assign_file(path, Target(tmp_path / "alone.h5ad"))
    assert "vote" not in ad.read_h5ad(tmp_path / "alone.h5ad").uns["scrcl"]


@pytest.mark.parametrize("bundle", [tiny_bundle(spatial=SpatialSpec(4, 1)), tiny_bundle(n_types=0)])
def test_spatial_bundles_and_those_without_a_type_head_vote_too(bundle: Bundle) -> None:
    model, adata = Model(bundle, sha256="0", threads=1), query(n=150)
    adata.obsm["spatial"] = np.random.default_rng(0).random((150, 2))
    alone, voted = model.assign(adata), model.assign(adata, options=VOTE)
    unknown = alone.cell_type == "unknown"
    np.testing.assert_array_equal(unknown, voted.cell_type == "unknown")
    assert (alone.confidence != voted.confidence)[~unknown].mean() > 0.5
    same(model.assign(adata, options=AssignOptions(vote=True, block_size=11)), voted)


def test_no_cell_and_one_cell_are_no_error(model: Model, tmp_path: Path) -> None:
    for n in (0, 1):
        few = query(n=200)[:n].copy()
        same(model.assign(few, options=VOTE), model.assign(few))
