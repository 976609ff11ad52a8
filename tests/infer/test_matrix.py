"""Which matrix is taken, as what, and what is said when none fits."""

from __future__ import annotations

import math
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
from tests.matrix_case import CENTRED, COUNTS, LOGGED, SCALED, G, N, choose


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


@pytest.mark.parametrize("log_base", [None, math.e])
def test_to_counts_takes_the_logarithm_back(log_base: float | None) -> None:
    logged = LOGGED.copy()
    logged[3] = 0
    columns = np.where(np.arange(G) < 50, np.arange(G), -1).astype(np.int32)
    with open_source(anndata.AnnData(logged)) as source:
        report = choose_matrix(source)
        blocks = iter_blocks(source, "X", block_size=30, columns=columns, n_columns=50, threads=1, log_base=log_base)
        got = [to_counts(block, report) for block in blocks]
        rows = [to_counts(rows, report).toarray() for _, rows in iter_csr_blocks(source, "X", block_size=30)]
    want = SCALED.copy()
    want[3] = 0
    np.testing.assert_allclose(np.vstack([b.counts for b in got]), want[:, :50], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.vstack(rows), want, rtol=1e-5, atol=1e-5)
    library = np.vstack([b.library_size for b in got])[:, 0]
    np.testing.assert_array_equal(library, np.where(np.arange(N) == 3, 0, 1e4).astype(np.float32))


@pytest.mark.parametrize("log_base", [None, 2.0])
def test_no_guessed_logarithm_comes_to_more_than_its_cell(log_base: float | None) -> None:
    """The encoder counts in whole steps that end where one gene has all counts of a cell."""
    report = MatrixReport("X", "log1p10k", "guessed", 1e4, 2.0)
    with open_source(anndata.AnnData(np.array([[3.0, 20.0, 0.0]], np.float32))) as source:
        blocks = iter_blocks(source, "X", block_size=9, columns=None, n_columns=3, threads=1, log_base=log_base)
        (block,) = (to_counts(block, report) for block in blocks)
        ((_, rows),) = iter_csr_blocks(source, "X", block_size=9)
        np.testing.assert_allclose(block.counts, [[7, 1e4, 0]], rtol=1e-6)
        np.testing.assert_allclose(to_counts(rows, report).toarray(), [[7, 1e4, 0]], rtol=1e-6)
        np.testing.assert_allclose(rows.toarray(), [[3, 20, 0]])


def test_raw_is_taken_in_place_of_what_was_cut_to_some_genes() -> None:
    """A cell's total is that of all its genes."""
    few = COUNTS[:, :40]
    for raw, state in ((COUNTS, "counts"), (LOGGED, "log1p10k")):
        for x, layers in ((few, {}), (np.log1p(SCALED[:, :40]), {}), (CENTRED[:, :40], {"counts": few})):
            report = choose(x, raw=raw, **layers)
            assert (report.where, report.state) == ("raw/X", state)
            if layers or x is few:
                assert "holds only a part of its genes" in report.reason
    # Where little is missing, or what raw holds is not sure to be whole, it stays as it is.
    assert choose(COUNTS[:, :195], raw=COUNTS).where == "X"
    assert choose(few, raw=LOGGED[:, :90]).where == "X"
    assert choose(few, raw=CENTRED).where == "X"
    assert choose(few, raw=COUNTS, layer="X").where == "X"
    assert choose(few, raw=LOGGED, state="counts").where == "X"
    assert choose(LOGGED[:, :40], raw=COUNTS, state="log1p10k").where == "X"


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
