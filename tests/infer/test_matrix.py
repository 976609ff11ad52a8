"""Which matrix is taken, as what, and what is said when none fits."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scrcl_infer.errors import MatrixError
from scrcl_infer.h5ad import iter_blocks, iter_csr_blocks, open_source
from scrcl_infer.matrix import choose_matrix, to_counts
from scrcl_infer.result import MatrixReport

N, G = 80, 200
RNG = np.random.default_rng(0)
COUNTS = RNG.negative_binomial(0.4, 0.2, (N, G)).astype(np.float32)
SCALED = (COUNTS / COUNTS.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
LOGGED = np.log1p(SCALED)
CENTRED = (LOGGED - LOGGED.mean(axis=0)).astype(np.float32)


def choose(x: Any, *, raw: Any = None, layer: str | None = None, state: Any = "auto", **layers: Any) -> MatrixReport:
    adata = anndata.AnnData(x, layers=layers)
    if raw is not None:
        adata.raw = anndata.AnnData(raw)
    with open_source(adata) as source:
        return choose_matrix(source, layer=layer, state=state)


@pytest.mark.parametrize("build", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_counts_in_x(build: Any) -> None:
    report = choose(build(COUNTS), counts=COUNTS)
    assert (report.where, report.state, report.target_sum) == ("X", "counts", None)
    assert "whole numbers" in report.reason


def test_a_matrix_without_values_is_taken_last() -> None:
    nothing = np.zeros_like(COUNTS)
    assert choose(nothing, counts=COUNTS).where == "layers/counts"
    assert choose(nothing, logged=LOGGED).where == "layers/logged"
    report = choose(nothing, also=nothing)
    assert (report.where, report.state) == ("X", "counts")
    assert "no value above 0" in report.reason


def test_counts_elsewhere() -> None:
    assert choose(LOGGED, counts=COUNTS).where == "layers/counts"
    assert choose(LOGGED, other=COUNTS).where == "layers/other"
    assert choose(CENTRED, raw=COUNTS).where == "raw/X"
    assert choose(CENTRED, raw=LOGGED).where == "raw/X"
    assert choose(None, counts=COUNTS).where == "layers/counts"


def test_velocity_files_give_the_layer_with_most_counts() -> None:
    few = np.minimum(COUNTS, 2)
    assert choose(LOGGED, ambiguous=few, spliced=COUNTS, unspliced=few).where == "layers/spliced"


def test_a_mask_is_not_taken_for_counts() -> None:
    report = choose(LOGGED, detected=(COUNTS > 0).astype(np.float32))
    assert (report.where, report.state) == ("X", "log1p10k")


@pytest.mark.parametrize("target", [1e4, 1e6, 2345.0])
def test_log1p_of_scaled_counts(target: float) -> None:
    report = choose(np.log1p(SCALED * np.float32(target / 1e4)))
    assert (report.where, report.state) == ("X", "log1p10k")
    assert report.target_sum == pytest.approx(target, rel=1e-3)
    assert "expm1" in report.reason


def test_log1p_of_a_part_of_the_genes() -> None:
    report = choose(LOGGED[:, :90])
    assert (report.state, report.target_sum) == ("log1p10k", 1e4)
    assert "assumed" in report.reason


@pytest.mark.parametrize("scale", [20.0, 300.0])
def test_logarithms_of_another_kind_are_taken_as_they_are_and_said(scale: float) -> None:
    """log2 of one more than rates whose totals differ from cell to cell, and of a part of the genes."""
    rates = SCALED[:, :90] * np.random.default_rng(0).uniform(0.5, 2, (N, 1)) * scale / 100
    report = choose(np.log2(1 + rates).astype(np.float32))
    assert (report.state, report.target_sum) == ("log1p10k", 1e4)
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


def test_what_fits_nothing_is_refused_with_what_was_found() -> None:
    squeezed = np.sqrt(LOGGED)
    with pytest.raises(MatrixError) as caught:
        choose(squeezed, scaled=CENTRED)
    text = str(caught.value)
    assert f"{squeezed.max():g}" in text
    assert "X: values from" in text
    assert "layers/scaled: -" in text
    assert "--layer" in text
    assert "--input-state" in text


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5])
@pytest.mark.parametrize("build", [np.asarray, sp.csr_matrix, sp.csc_matrix])
def test_impossible_values_name_cell_and_gene(value: float, build: Any) -> None:
    spoilt = COUNTS.copy()
    spoilt[70, 33] = value
    adata = anndata.AnnData(
        build(spoilt),
        obs=pd.DataFrame(index=[f"c{i}" for i in range(N)]),
        var=pd.DataFrame(index=[f"g{i}" for i in range(G)]),
    )
    with open_source(adata) as source, pytest.raises(MatrixError, match=r"cell 'c70' \(row 70\) and gene 'g33'"):
        choose_matrix(source)


@pytest.mark.parametrize("state", ["auto", "counts", "log1p10k"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -0.5])
def test_impossible_values_are_told_apart_from_unclear_ones(value: float, state: str) -> None:
    spoilt = COUNTS.copy()
    spoilt[70, 33] = value
    with pytest.raises(MatrixError) as caught:
        choose(spoilt, layer="X", state=state)
    text = str(caught.value)
    assert f"X: {value:g} for cell" in text
    assert re.search(rf"finite values from (-0\.5|0|1) to {COUNTS.max():g}\n", text)  # zeros are not stored
    assert "never negative" in text
    assert "--layer" in text
    assert "--input-state" not in text


def test_where_no_value_is_a_number_none_is_given() -> None:
    with pytest.raises(MatrixError, match="and gene '0'; no finite value\n"):
        choose(np.full_like(COUNTS, np.nan))


@pytest.mark.parametrize(("x", "state"), [(LOGGED, "counts"), (COUNTS, "log1p10k")])
def test_a_state_that_contradicts_the_values_is_not_advised_again(x: Any, state: str) -> None:
    with pytest.raises(MatrixError, match=f"leave out --input-state {state}, which contradicts"):
        choose(x, state=state)


def test_the_end_of_a_long_file_is_looked_at() -> None:
    long = np.tile(COUNTS, (20, 1))
    long[-1, 0] = 0.5
    with pytest.raises(MatrixError, match="No matrix"):
        choose(np.minimum(long, 20))


def test_a_named_layer_is_the_only_one() -> None:
    assert choose(COUNTS, mine=COUNTS, layer="mine").where == "layers/mine"
    assert choose(COUNTS, mine=COUNTS, layer="layers/mine").where == "layers/mine"
    assert choose(COUNTS, raw=COUNTS, layer="raw").where == "raw/X"
    assert choose(LOGGED, raw=COUNTS, layer="X").state == "log1p10k"
    with pytest.raises(MatrixError, match=r"no layer 'nope'.*X, layers/mine"):
        choose(COUNTS, mine=COUNTS, layer="nope")
    with pytest.raises(MatrixError, match="layers/bad"):
        choose(COUNTS, bad=CENTRED, layer="bad")


def test_a_named_state_is_taken_at_its_word_where_possible() -> None:
    odd = np.sqrt(LOGGED)
    assert choose(odd, state="counts").state == "counts"
    assert choose(odd, state="log1p10k").target_sum == 1e4
    assert choose(LOGGED, counts=COUNTS, state="log1p10k").where == "X"
    assert choose(LOGGED, counts=COUNTS, state="counts").where == "layers/counts"
    with pytest.raises(MatrixError, match="log1p of counts per 10,000"):
        choose(COUNTS, state="log1p10k")
    with pytest.raises(MatrixError, match="No matrix holds counts"):
        choose(CENTRED, state="counts")


@pytest.mark.parametrize("x", [np.zeros((5, 3), np.float32), np.zeros((0, 3), np.float32)])
def test_nothing_in_it_is_no_error(x: np.ndarray[Any, Any]) -> None:
    assert choose(x).state == "counts"


def test_no_matrix_at_all() -> None:
    with pytest.raises(MatrixError, match="no matrix"):
        choose(None)


@pytest.mark.parametrize("log1p", [False, True])
def test_to_counts_takes_the_logarithm_back(log1p: bool) -> None:  # noqa: FBT001 - a parameter
    logged = LOGGED.copy()
    logged[3] = 0
    columns = np.where(np.arange(G) < 50, np.arange(G), -1).astype(np.int32)
    with open_source(anndata.AnnData(logged)) as source:
        report = choose_matrix(source)
        blocks = iter_blocks(source, "X", block_size=30, columns=columns, n_columns=50, threads=1, log1p=log1p)
        got = [to_counts(block, report) for block in blocks]
        rows = [to_counts(rows, report).toarray() for _, rows in iter_csr_blocks(source, "X", block_size=30)]
    want = SCALED.copy()
    want[3] = 0
    np.testing.assert_allclose(np.vstack([b.counts for b in got]), want[:, :50], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.vstack(rows), want, rtol=1e-5, atol=1e-5)
    library = np.vstack([b.library_size for b in got])[:, 0]
    np.testing.assert_array_equal(library, np.where(np.arange(N) == 3, 0, 1e4).astype(np.float32))


def test_to_counts_leaves_counts_alone() -> None:
    with open_source(anndata.AnnData(COUNTS)) as source:
        report = choose_matrix(source)
        block = next(iter(iter_blocks(source, "X", block_size=9, columns=None, n_columns=G, threads=1)))
    assert to_counts(block, report) is block


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "state"),
    [("pbmc3k", "counts"), ("MCA_Lung3", "counts"), ("panc8_small", "counts"), ("symphony_pbmc1200", "log1p10k"),
     ("Xin_pancreas674_lognorm", "log1p10k"), ("Wang_pancreas501_lognorm", "log1p10k")],
)  # fmt: skip
def test_real_files(name: str, state: str) -> None:
    path = Path(os.environ.get("SCRCL_DATA", "../shared/data")) / f"{name}.h5ad"
    if not path.exists():
        pytest.skip(f"{path} is absent")
    with open_source(path) as source:
        assert choose_matrix(source).state == state
