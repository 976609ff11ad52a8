"""Counts found again in scaled values, against the counts that they were made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from scrcl_train import recount
from scrcl_train.data import read_training_data
from scrcl_train.recount import find_counts


def draw(seed: int) -> NDArray[np.float64]:
    """Counts of 40 cells; the smallest of each is 1."""
    rng = np.random.default_rng(seed)
    counts = rng.negative_binomial(0.6, 0.15, (40, 120)).astype(float)
    counts[:, 0] = 1
    return counts


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), total=st.sampled_from([1e3, 1e4, 1e6]))
def test_counts_come_back_from_single_precision_logarithms(seed: int, total: float) -> None:
    counts = draw(seed)
    library = counts.sum(axis=1) * np.random.default_rng(seed).uniform(1, 3, 40)
    logged = np.log1p(counts * (total / library)[:, None]).astype(np.float32)
    found = find_counts(sp.csr_matrix(np.expm1(logged)), np.full(40, total, np.float32))
    assert found is not None
    np.testing.assert_allclose(found.counts.toarray(), counts, rtol=1e-3)
    np.testing.assert_allclose(found.library_size, library, rtol=1e-3)


def test_the_answer_does_not_depend_on_how_many_cells_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    values, total = sp.csr_matrix(draw(3) * 0.37), np.full(40, 1e4, np.float32)
    whole = find_counts(values, total)
    monkeypatch.setattr(recount, "CELLS_AT_ONCE", 7)
    parts = find_counts(values, total)
    assert whole is not None
    assert parts is not None
    np.testing.assert_array_equal(whole.counts.toarray(), parts.counts.toarray())
    np.testing.assert_array_equal(whole.library_size, parts.library_size)


def test_what_comes_from_no_counts_is_left_alone() -> None:
    rng = np.random.default_rng(0)
    library = np.full(40, 1e4, np.float32)
    lengths = rng.uniform(0.3, 3, 120)
    for values in (rng.lognormal(0, 1, (40, 120)), draw(0) / lengths, draw(0) * rng.normal(1, 0.05, (40, 120))):
        assert find_counts(sp.csr_matrix(values.astype(np.float32)), library) is None
    assert find_counts(sp.csr_matrix((3, 5), dtype=np.float32), library[:3]) is None
    ones = sp.csr_matrix(np.ones((40, 5), np.float32))  # nothing tells
    assert find_counts(ones, library) is None


@pytest.mark.parametrize("base", [np.e, 2.0])
def test_a_file_of_logarithms_is_trained_on_as_its_counts(tmp_path: Path, simulated: AnnData, base: float) -> None:
    adata = simulated.copy()
    totals = np.asarray(adata.X.sum(axis=1))
    adata.write_h5ad(tmp_path / "counts.h5ad")
    logged = adata.X.multiply(10_000 / totals).tocsr()
    logged.data = np.log1p(logged.data) / np.log(base)
    adata.X = logged.astype(np.float32)
    adata.write_h5ad(tmp_path / "logged.h5ad")
    counted, found = (read_training_data(tmp_path / f"{name}.h5ad") for name in ("counts", "logged"))
    assert counted.are_counts
    assert found.are_counts
    assert found.matrix.state == "log1p10k"
    adata.X = simulated.X.multiply(1e6 / totals).tocsr()
    adata.write_h5ad(tmp_path / "million.h5ad")
    million = read_training_data(tmp_path / "million.h5ad")
    np.testing.assert_allclose(million.counts.toarray(), counted.counts.toarray(), rtol=1e-3)
    np.testing.assert_allclose(found.counts.toarray(), counted.counts.toarray(), rtol=1e-3)
    np.testing.assert_allclose(found.library_size, counted.library_size, rtol=1e-3)
