"""What a matrix is told to hold: logarithms of which base and total, fractions, counts."""

from __future__ import annotations

import math

import anndata
import numpy as np
import pandas as pd
import pytest

from scrcl_infer import look
from scrcl_infer.errors import MatrixError
from scrcl_infer.h5ad import iter_csr_blocks, open_source
from scrcl_infer.matrix import choose_matrix, to_counts
from tests.matrix_case import COUNTS, LOGGED, SCALED, G, N, choose


@pytest.mark.parametrize("target", [1e4, 1e6, 2345.0])
def test_log1p_of_scaled_counts(target: float) -> None:
    report = choose(np.log1p(SCALED * np.float32(target / 1e4)))
    assert (report.where, report.state) == ("X", "log1p10k")
    assert report.target_sum == pytest.approx(target, rel=1e-3)
    assert report.log_base == math.e
    assert "taken back" in report.reason


@pytest.mark.parametrize("base", [2, 10])
@pytest.mark.parametrize("target", [1e4, 1e6, 2345.0])
def test_logarithms_to_another_base_are_told_where_all_genes_are_there(base: float, target: float) -> None:
    scaled = SCALED * np.float32(target / 1e4)
    logged = (np.log1p(scaled) / np.log(base)).astype(np.float32)
    with open_source(anndata.AnnData(logged)) as source:
        report = choose_matrix(source)
        rows = [to_counts(rows, report).toarray() for _, rows in iter_csr_blocks(source, "X", block_size=30)]
    assert (report.state, report.log_base) == ("log1p10k", base)
    assert report.target_sum == pytest.approx(target, rel=1e-3)
    assert f"log{base}(1 + x)" in report.reason
    np.testing.assert_allclose(np.vstack(rows), scaled, rtol=1e-4, atol=1e-4)


def test_log1p_of_a_part_of_the_genes() -> None:
    report = choose(LOGGED[:, :90])
    assert (report.state, report.target_sum) == ("log1p10k", 1e4)
    assert "assumed" in report.reason


@pytest.mark.parametrize("base", [math.e, 2.0, 10.0])
def test_logarithms_of_counts_have_totals_of_their_own(base: float) -> None:
    report = choose((np.log1p(COUNTS) / np.log(base)).astype(np.float32))
    assert (report.state, report.target_sum, report.totals) == ("log1p10k", None, "summed")
    assert report.log_base == base
    assert "total of its own" in report.reason


def test_cells_scaled_by_factors_of_their_own_are_told_where_all_genes_are_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    factors = np.random.default_rng(0).uniform(3, 9, (N, 1)).astype(np.float32)
    assert choose(np.log1p(COUNTS * factors)).totals == "assumed"
    monkeypatch.setattr(look, "WHOLE_GENES", G)
    report = choose(np.log1p(COUNTS * factors))
    assert (report.state, report.target_sum, report.totals) == ("log1p10k", None, "summed")


@pytest.mark.parametrize(("base", "target"), [(2, 1e4), (math.e, 1e6), (2, 1e6)])
def test_base_and_total_of_a_part_of_the_genes_follow_from_whole_multiples(base: float, target: float) -> None:
    report = choose((np.log1p(SCALED[:, :90] * target / 1e4) / np.log(base)).astype(np.float32))
    assert (report.state, report.log_base, report.target_sum) == ("log1p10k", base, target)
    assert "assumed" in report.reason


@pytest.mark.parametrize(("scale", "base", "total"), [(2.0, math.e, 1e4), (300.0, 2.0, 1e6)])
def test_logarithms_of_another_kind_are_taken_for_the_usual_one_that_fits(
    scale: float, base: float, total: float
) -> None:
    """log2 of one more than rates whose totals differ from cell to cell, and of a part of the genes."""
    rng = np.random.default_rng(0)
    rates = SCALED[:, :90] * rng.uniform(0.5, 2, (N, 1)) * rng.uniform(0.5, 2, (1, 90)) * scale / 100
    report = choose(np.log2(1 + rates).astype(np.float32))
    assert (report.state, report.log_base, report.target_sum) == ("log1p10k", base, total)
    assert "unknown base" in report.reason
    assert "--input-state counts" in report.reason


def test_counts_with_the_background_taken_off_are_no_logarithms() -> None:
    """Fractions from 0 to 40 with the long tail of counts."""
    counts = np.random.default_rng(0).negative_binomial(0.4, 0.15, (N, G)) * 0.9
    with pytest.raises(MatrixError, match="No matrix holds counts"):
        choose(np.minimum(counts, 24).astype(np.float32))


def test_fractions_too_large_for_logarithms_are_counts_with_a_warning() -> None:
    report = choose(COUNTS * np.float32(10.37))
    assert report.state == "counts"
    assert "check that they are not logged" in report.reason


@pytest.mark.parametrize("clr", [3.7, -1.2])
def test_antibodies_have_no_say_in_what_the_genes_are(clr: float) -> None:
    antibodies = np.random.default_rng(1).poisson(50, (N, 20)).astype(np.float32)
    kinds = pd.DataFrame({"feature_types": ["Gene Expression"] * G + ["Antibody Capture"] * 20})
    kinds.index = [f"f{i}" for i in range(G + 20)]
    for others in (antibodies, np.full((N, 20), clr, np.float32)):
        adata = anndata.AnnData(np.hstack([LOGGED, others]), var=kinds)
        with open_source(adata) as source:
            report = choose_matrix(source)
        assert (report.state, report.target_sum, report.log_base) == ("log1p10k", 1e4, math.e)


def test_the_end_of_a_long_file_is_looked_at() -> None:
    long = np.tile(COUNTS, (20, 1))
    long[-1, 0] = 0.5
    with pytest.raises(MatrixError, match="No matrix"):
        choose(np.minimum(long, 20))
