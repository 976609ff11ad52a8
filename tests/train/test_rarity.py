"""`scrcl_train.rarity` against the formula in float64, and against cells drawn from the classes."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray

from scrcl_train.rarity import MAX_RARITY, PRIOR_CELLS, RAREST, SATURATION, fit_rarity, nothing_rare

N_GENES = 600
RATES = np.random.default_rng(7).gamma(0.4, 1.0, (3, N_GENES)) + 0.01
RATES /= RATES.sum(axis=1, keepdims=True)


def cells(n: int, depths: NDArray[np.float64], seed: int) -> tuple[sp.csr_matrix, NDArray[np.int64]]:
    """Cells of three classes, each with about one of the depths in counts."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 3, n)
    counts = rng.poisson(RATES[classes] * rng.choice(depths, n)[:, None]).astype(np.float32)
    return sp.csr_matrix(counts), classes


def totals(counts: sp.csr_matrix) -> NDArray[np.float32]:
    return np.asarray(counts.sum(axis=1), dtype=np.float32).reshape(-1)


def test_the_table_is_the_formula() -> None:
    counts, classes = cells(300, np.array([200.0]), 0)
    library = totals(counts) * 2
    classes[::9] = -1
    found = fit_rarity(counts, library, classes)
    known = classes >= 0
    shares = counts.toarray().astype(np.float64) / library[:, None]
    overall = shares[known].mean(axis=0)
    for k in range(3):
        own = shares[classes == k]
        rate = (own.sum(axis=0) + PRIOR_CELLS * overall) / (len(own) + PRIOR_CELLS)
        seen = 1 - np.exp(-np.maximum(rate * SATURATION * np.median(library), RAREST))
        expected = np.log(seen) / np.log(1 - np.exp(-RAREST)) * MAX_RARITY
        np.testing.assert_allclose(found.table[:, k], expected, atol=0.51)
    assert found.table.dtype == found.expected.dtype == np.float32
    np.testing.assert_array_equal(found.table, np.round(found.table))
    assert found.table.min() >= 0
    assert found.table.max() <= MAX_RARITY


def test_what_is_expected_is_what_cells_of_the_class_show() -> None:
    counts, classes = cells(3000, np.array([150.0]), 1)
    found = fit_rarity(counts, totals(counts), classes)
    fresh, truth = cells(6000, np.array([5.0, 20.0, 60.0, 200.0, 500.0]), 2)
    shown = fresh.toarray() > 0
    n_shown = shown.sum(axis=1)
    for k in range(3):
        own = (truth == k) & (n_shown > 0)
        mean = (shown[own] @ found.table[:, k]) / n_shown[own]
        usual = np.interp(np.log10(n_shown[own]), found.log_detected, found.expected[k])
        for low, high in ((2, 8), (8, 20), (20, 60), (60, 300)):
            here = (n_shown[own] >= low) & (n_shown[own] < high)
            assert (mean[here] / usual[here]).mean() == pytest.approx(1, abs=0.1), (k, low)


def test_cells_of_another_kind_show_rarer_genes_at_every_depth() -> None:
    counts, classes = cells(600, np.array([150.0]), 3)
    two = np.where(classes == 2, -1, classes)
    found = fit_rarity(counts, totals(counts), two)
    assert found.table.shape == (N_GENES, 2)
    for depth in (20.0, 60.0, 200.0):
        fresh, truth = cells(900, np.array([depth]), 4)
        shown = (fresh.toarray() > 0).astype(np.float64)
        n_shown = shown.sum(axis=1)
        usual = np.stack([np.interp(np.log10(n_shown), found.log_detected, row) for row in found.expected], axis=1)
        least = (shown @ found.table / n_shown[:, None] / usual).min(axis=1)
        assert np.median(least[truth == 2]) > np.quantile(least[truth < 2], 0.9)


def test_what_there_is_nothing_of_is_no_error() -> None:
    empty = fit_rarity(sp.csr_matrix((4, 6), dtype=np.float32), np.zeros(4, np.float32), np.array([0, 0, 1, 1]))
    assert np.isfinite(empty.table).all()
    assert (empty.expected > 0).all()
    assert nothing_rare(6).table.shape == (6, 1)
