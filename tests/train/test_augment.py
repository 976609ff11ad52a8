"""Augmented cells against what their distribution must be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.stats import kstest

from scrcl_train.augment import AugmentConfig, CellSampler
from tests.student_case import make_world

CPU = torch.device("cpu")
STILL = AugmentConfig(thin=False, max_gene_dropout=0.0, shrink_library=0.0)


def draw(
    counts: NDArray[np.float32], library: NDArray[np.float32], config: AugmentConfig, *, times: int = 1, seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Every cell `times` times in a row."""
    sampler = CellSampler(sp.csr_matrix(counts), library, CPU)
    rows = torch.arange(len(counts)).repeat_interleave(times)
    block, size = sampler.sample(rows, config, torch.Generator().manual_seed(seed))
    return block.numpy(), size.numpy()[:, 0]


def test_without_augmentation_cells_come_as_they_are_in_any_order() -> None:
    world = make_world()
    sampler = CellSampler(world.counts, world.library_size, CPU)
    rows = torch.tensor([7, 0, 7, 300])
    block, library = sampler.sample(rows, STILL, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(block.numpy(), world.counts[rows.numpy()].toarray())
    np.testing.assert_allclose(library.numpy()[:, 0], world.library_size[rows.numpy()], rtol=1e-6)


def test_entries_stored_twice_are_added_up_and_the_matrix_is_left_alone() -> None:
    twice = sp.csr_matrix((np.array([1.0, 2.0], np.float32), np.array([3, 3]), np.array([0, 2])), shape=(1, 5))
    sampler = CellSampler(twice, np.array([10.0], dtype=np.float32), CPU)
    block, _ = sampler.sample(torch.tensor([0]), STILL, torch.Generator().manual_seed(0))
    assert block.tolist() == [[0, 0, 0, 3, 0]]
    assert twice.nnz == 2


def test_thinned_counts_are_poisson_around_the_kept_share() -> None:
    counts = np.array([[40.0, 0.0, 3.0]], dtype=np.float32)
    config = replace(STILL, thin=True, min_kept=1.0)
    block, library = draw(counts, np.array([143.0], dtype=np.float32), config, times=20_000)
    np.testing.assert_allclose(block.mean(axis=0), counts[0], atol=0.15)
    np.testing.assert_allclose(block.var(axis=0), counts[0], rtol=0.05)
    assert library.mean() == pytest.approx(143, rel=0.01)
    # the cell's own counts are part of its library size, so the two vary together
    assert np.cov(block.sum(axis=1), library)[0, 1] == pytest.approx(43, rel=0.1)


def test_the_kept_share_is_log_uniform_and_one_for_a_cell() -> None:
    counts = np.array([[1e6, 1e6]], dtype=np.float32)
    config = replace(STILL, thin=True, min_kept=0.1)
    block, library = draw(counts, np.array([4e6], dtype=np.float32), config, times=3000)
    share = block[:, 0] / 1e6
    np.testing.assert_allclose(share, block[:, 1] / 1e6, rtol=0.02)
    np.testing.assert_allclose(share, library / 4e6, rtol=0.02)
    assert kstest(np.log10(share), "uniform", args=(-1, 1)).pvalue > 0.001


def test_genes_are_lost_by_a_share_that_is_uniform_over_cells() -> None:
    counts = np.ones((1, 4000), dtype=np.float32)
    config = replace(STILL, max_gene_dropout=0.9)
    block, library = draw(counts, np.array([8000.0], dtype=np.float32), config, times=1000)
    assert set(np.unique(block)) == {0.0, 1.0}
    lost = 1 - block.mean(axis=1)
    assert kstest(lost, "uniform", args=(0, 0.9)).pvalue > 0.001
    np.testing.assert_allclose(library, 8000)


def test_the_library_shrinks_with_the_genes_in_the_asked_share_of_cells() -> None:
    counts = np.ones((1, 4000), dtype=np.float32)
    config = replace(STILL, max_gene_dropout=0.9, shrink_library=0.5)
    block, library = draw(counts, np.array([8000.0], dtype=np.float32), config, times=1000)
    shrunk = np.isclose(library, 8000 * block.mean(axis=1), rtol=1e-4)
    same = np.isclose(library, 8000)
    assert (shrunk | same).all()
    assert shrunk.mean() == pytest.approx(0.5, abs=0.06)


def test_zeros_stay_zeros_and_counts_stay_whole() -> None:
    world = make_world()
    block, library = draw(world.counts.toarray(), world.library_size, AugmentConfig())
    assert not block[world.counts.toarray() == 0].any()
    np.testing.assert_array_equal(block, np.round(block))
    assert (library >= 0).all()


def test_values_that_are_no_counts_are_not_drawn_anew() -> None:
    values = np.array([[0.25, 0.0, 17.5]], dtype=np.float32)
    block, _ = draw(values, np.array([1e4], dtype=np.float32), AugmentConfig(thin=False), times=200)
    assert set(np.unique(block)) <= {np.float32(0), np.float32(0.25), np.float32(17.5)}


def test_a_cell_without_counts_stays_one() -> None:
    block, library = draw(np.zeros((2, 4), dtype=np.float32), np.zeros(2, dtype=np.float32), AugmentConfig())
    assert not block.any()
    assert np.isfinite(library).all()


def test_a_library_below_the_counts_is_taken_as_the_counts_where_they_are_drawn_anew_and_else_stays() -> None:
    # Logarithms of another base than they are taken for come to more than the total that they are said to have; the
    # trained student will be given that total, and has to learn with it.
    values, said = np.array([[5e7, 5e6]], dtype=np.float32), np.array([1e4], dtype=np.float32)
    assert draw(values, said, STILL)[1].tolist() == [1e4]
    _, drawn = draw(values, said, replace(STILL, thin=True, min_kept=1.0))
    assert drawn[0] == pytest.approx(5.5e7, rel=1e-2)
    shrunk, library = draw(values, said, replace(STILL, max_gene_dropout=0.9, shrink_library=1.0), times=50)
    np.testing.assert_allclose(library, 1e4 * shrunk.sum(axis=1) / 5.5e7, rtol=1e-5)


def test_the_same_seed_draws_the_same() -> None:
    world = make_world()
    first, second, other = (
        draw(world.counts.toarray(), world.library_size, AugmentConfig(), seed=seed)[0] for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()
