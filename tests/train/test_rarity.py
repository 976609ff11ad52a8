"""`scrcl_train.rarity` against the formula in float64, and against cells of a class that it has not seen."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scrcl_infer.rarity import MAX_RARITY, RAREST, compute_rarity, expect_rarity
from scrcl_train.rarity import PRIOR_CELLS, SATURATION, fit_rarity

N_GENES = 600
RATES = np.random.default_rng(7).gamma(0.4, 1.0, (3, N_GENES)) + 0.01
RATES /= RATES.sum(axis=1, keepdims=True)


def cells(n: int, depth: float, seed: int) -> tuple[sp.csr_matrix, NDArray[np.float32], NDArray[np.int64]]:
    """Counts, totals and classes of cells of three classes."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 3, n)
    counts = rng.poisson(RATES[classes] * depth).astype(np.float32)
    return sp.csr_matrix(counts), counts.sum(axis=1), classes


def test_the_table_is_the_formula() -> None:
    counts, library, classes = cells(300, 200.0, 0)
    library *= 2
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
        np.testing.assert_allclose(found[:, k], expected, atol=0.51)
    assert found.dtype == np.uint8
    assert found.max() <= MAX_RARITY


def test_cells_of_another_kind_show_rarer_genes_at_every_depth() -> None:
    counts, library, classes = cells(600, 150.0, 3)
    found = fit_rarity(counts, library, np.where(classes == 2, -1, classes))
    assert found.shape == (N_GENES, 2)
    for depth in (20.0, 60.0, 200.0):
        fresh, _, truth = cells(900, depth, 4)
        shown = (fresh.toarray() > 0).astype(np.float32)
        rarity = compute_rarity(shown @ found, shown.sum(axis=1).astype(np.int64), expect_rarity(found))
        assert np.median(rarity[truth == 2]) > np.quantile(rarity[truth < 2], 0.9)


def test_without_classes_all_cells_are_one() -> None:
    counts, library, classes = cells(100, 150.0, 5)
    expected = fit_rarity(counts, library, np.zeros_like(classes))
    np.testing.assert_array_equal(fit_rarity(counts, library, np.full_like(classes, -1)), expected)


def test_genes_without_counts_are_as_rare_as_can_be() -> None:
    found = fit_rarity(sp.csr_matrix((4, 6), dtype=np.float32), np.zeros(4, np.float32), np.array([0, 0, 1, 1]))
    np.testing.assert_array_equal(found, MAX_RARITY)
