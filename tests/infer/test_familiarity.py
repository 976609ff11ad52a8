"""`scrcl_infer.familiarity`: the warning about a file as a whole, and its figures against numpy's."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrcl_infer.familiarity import FamiliarityTally, doubt
from scrcl_infer.pipeline import Model
from scrcl_infer.result import AssignedBlock, AssignOptions, GeneReport
from tests.make_bundle import random_counts, tiny_bundle

MANIFEST = tiny_bundle().manifest
GENES = GeneReport(40, 40, 1.0, "var_names as names", 0, 0, ("GENE7",), "Homo sapiens", "Homo sapiens")


def block(strangeness: list[float] | None) -> AssignedBlock:
    n = 4 if strangeness is None else len(strangeness)
    whole, zero = np.zeros(n, np.int32), np.zeros(n, np.float32)
    values = None if strangeness is None else np.array(strangeness, np.float32)
    population = whole if values is None else np.where(np.isnan(values), -1, 0).astype(np.int32)
    return AssignedBlock(0, population, whole, zero, zero, zero[:, None], zero[:, None], strangeness=values)


def warnings(strangeness: list[float] | None, genes: GeneReport = GENES, *, unknown_share: float = 0.0) -> list[str]:
    tally = FamiliarityTally()
    tally.add(block(strangeness))
    return doubt(tally.summarise(genes), MANIFEST, genes, unknown_share=unknown_share)


@given(st.lists(st.lists(st.floats(-40, 150), max_size=30), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_share_and_median_are_those_of_all_cells_together(parts: list[list[float]]) -> None:
    tally = FamiliarityTally()
    for part in parts:
        tally.add(block([*part, np.nan]))
    values = np.array([x for part in parts for x in part], np.float32)
    found = tally.summarise(GENES)
    if not len(values):
        assert found.strange_share is found.median_strangeness is None
        return
    assert found.strange_share == pytest.approx((values > 0).mean())
    assert found.median_strangeness == pytest.approx(np.quantile(values, 0.5, method="inverted_cdf"), abs=0.26)


def test_known_cells_raise_no_doubt() -> None:
    assert warnings([-5.0] * 95 + [3.0] * 5) == []


def test_strange_cells_raise_one_doubt_with_the_figures() -> None:
    (text,) = warnings([-5.0] * 20 + [12.0] * 80)
    assert "do not look like the data of the model 'tiny'" in text
    assert "80% of the cells" in text
    assert "median strangeness is 12" in text


def test_another_species_is_named_even_where_no_cell_is_strange() -> None:
    (text,) = warnings([-5.0] * 10, replace(GENES, species="Mus musculus"))
    assert "those of Mus musculus, the model's those of Homo sapiens" in text
    assert warnings([-5.0] * 10, replace(GENES, species="unknown")) == []


def test_spelling_alone_does_not_make_another_species() -> None:
    """Rat symbols are spelled as mouse's are, and human ones in small letters as a fish's."""
    rat = replace(GENES, species="Mus musculus", model_species="Rattus norvegicus")
    assert warnings([-5.0] * 10, rat) == []
    assert "those of Homo sapiens" in warnings([-5.0] * 10, replace(rat, species="Homo sapiens"))[0]
    small = replace(GENES, species="Danio rerio")
    assert warnings([-5.0] * 10, small) == []
    assert "those of Danio rerio" in warnings([-5.0] * 10, replace(small, weighted_overlap=0.8))[0]


def test_unsure_answers_raise_a_doubt_even_where_no_cell_is_strange() -> None:
    tally = FamiliarityTally()
    tally.add(block([-5.0] * 10))
    found = tally.summarise(GENES)
    assert doubt(found, MANIFEST, GENES, unknown_share=0, mean_confidence=0.7) == []
    (text,) = doubt(found, MANIFEST, GENES, unknown_share=0, mean_confidence=0.24)
    assert "the confidence of its answers is 0.24 on average" in text


def test_the_mean_confidence_is_that_of_the_cells_with_counts() -> None:
    bundle = tiny_bundle()
    object.__setattr__(bundle.manifest.calibration, "temperature", 1000.0)  # four types, all as likely
    adata = cells()
    adata.X[:30] = 0
    summary = Model(bundle, sha256="").assign(adata).summary
    assert any("confidence of its answers is 0.25 on average" in warning for warning in summary.warnings)


def test_a_file_without_cells_is_said_to_have_none() -> None:
    assert Model(tiny_bundle(), sha256="").assign(cells()[:0].copy()).summary.warnings == (
        "The input holds no cells: there was nothing to assign.",
    )


def test_few_genes_are_one_more_reason_and_a_doubt_of_their_own() -> None:
    few = replace(GENES, weighted_overlap=0.3)
    (alone,) = warnings([-5.0] * 10, few)
    assert alone.startswith("Only 30% of the model's evidence")
    (together,) = warnings([9.0] * 10, few)
    assert "only 30% of the model's evidence" in together


def test_an_input_cut_to_some_genes_is_one_more_reason_and_none_by_itself() -> None:
    n_known = tiny_bundle().manifest.provenance.n_genes
    cut, whole = (replace(GENES, n_query=n) for n in (n_known // 4, n_known // 2))
    strange, known = [1.0] * 8, [-1.0] * 20
    (text,) = warnings(strange, cut)
    assert f"holds {n_known // 4} genes where the training data held {n_known}" in text
    assert "of all genes" in text
    assert "of all genes" not in warnings(strange, whole)[0]
    assert warnings(known, cut) == []
    tally = FamiliarityTally()
    tally.add(block(strange))
    told = doubt(tally.summarise(cut), MANIFEST, cut, unknown_share=0.0, totals_are_known=True)
    assert "of all genes" not in told[0]


def test_without_strangeness_the_unknown_share_is_taken() -> None:
    assert warnings(None, unknown_share=0.4) == []
    assert "60% of the cells" in warnings(None, unknown_share=0.6)[0]


def cells() -> ad.AnnData:
    counts, _ = random_counts(60, 40, seed=4)
    return ad.AnnData(counts, var=pd.DataFrame(index=[f"GENE{i}" for i in range(40)]))


def test_a_file_of_strange_cells_raises_one_doubt_whether_they_are_rejected_or_not() -> None:
    bundle = tiny_bundle()
    assert bundle.rejection is not None
    strict = replace(bundle, rejection=replace(bundle.rejection, limit=bundle.rejection.limit - 1000))
    for reject in (True, False):
        summary = Model(strict, sha256="").assign(cells(), options=AssignOptions(reject=reject)).summary
        assert summary.n_unknown == (summary.n_cells if reject else summary.n_empty)
        (doubt,) = [warning for warning in summary.warnings if "do not look like" in warning]
        assert "100% of the cells are unknown to it" in doubt
        familiarity = summary.extra["familiarity"]
        assert familiarity["strange_share"] == 1
        assert familiarity["median_strangeness"] > 100


def test_without_a_reference_the_share_of_unknown_cells_raises_the_doubt() -> None:
    bundle = replace(tiny_bundle(), rejection=None)
    object.__setattr__(bundle.manifest.calibration, "threshold", 2.0)
    summary = Model(bundle, sha256="").assign(cells()).summary
    assert summary.n_unknown == summary.n_cells
    assert any("100% of the cells are unknown to it" in warning for warning in summary.warnings)
    assert summary.extra["familiarity"]["strange_share"] is None
