"""`scrcl_infer.rarity` against numpy's interpolation, and against cells drawn from what the table stands for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scrcl_infer.rarity import STEP, compute_rarity, expect_rarity

N_GENES = 600


def make_table(seed: int = 7) -> NDArray[np.uint8]:
    """Rarities of genes of which two classes show many and few counts."""
    counts = np.random.default_rng(seed).gamma(0.4, 0.7, (N_GENES, 2)) + 1e-3
    return np.rint(-np.log(-np.expm1(-counts)) / STEP).astype(np.uint8)


@given(n=st.integers(1, 40), seed=st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_it_is_the_mean_by_what_is_usual_for_as_many_genes_in_the_class_where_that_is_least(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    usual = expect_rarity(make_table(seed))
    n_detected = rng.integers(1, 700, n)
    sums = (n_detected[:, None] * rng.uniform(0, 100, (n, 2))).round().astype(np.float32)
    there = np.array([np.interp(np.log10(n_detected), usual.log_detected, row) for row in usual.expected])
    expected = np.min(sums.T / n_detected / there, axis=0)
    np.testing.assert_allclose(compute_rarity(sums, n_detected, usual), expected, rtol=1e-6)


@pytest.mark.parametrize("genes", ["all", "some", "the rarer half"])
def test_cells_of_a_class_are_as_usual_at_every_depth_whatever_genes_the_file_has(genes: str) -> None:
    table, rng = make_table(), np.random.default_rng(0)
    found = {"all": np.ones(N_GENES, bool), "some": rng.random(N_GENES) < 0.4}.get(genes)
    if found is None:
        found = table[:, 0] > np.median(table[:, 0])
    usual = expect_rarity(table, found)
    counts = -np.log(-np.expm1(-STEP * np.maximum(table[:, 0], 0.25)))
    for depth in (0.1, 0.3, 1.0, 3.0):
        shown = (rng.random((2000, N_GENES)) < -np.expm1(-depth * counts)) & found
        n_shown = shown.sum(axis=1)
        shown, n_shown = shown[n_shown > 2], n_shown[n_shown > 2]
        mean = shown @ table[:, 0].astype(float) / n_shown
        there = np.interp(np.log10(n_shown), usual.log_detected, usual.expected[0])
        assert (mean / there).mean() == pytest.approx(1, abs=0.05), depth


def test_a_file_without_genes_and_a_model_that_knows_no_rarity_are_no_errors() -> None:
    for usual in (
        expect_rarity(make_table(), np.zeros(N_GENES, bool)),
        expect_rarity(np.zeros((30, 4), np.uint8)),
        expect_rarity(np.full((30, 4), 127, np.uint8)),
    ):
        assert (usual.expected >= 1).all()
        sums = np.zeros((3, len(usual.expected)), np.float32)
        assert np.isfinite(compute_rarity(sums, np.array([0, 1, 30]), usual)).all()
