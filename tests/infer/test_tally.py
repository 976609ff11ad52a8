"""`scrcl_infer.tally` against counting with numpy over all cells at once."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrcl_infer.add import apply_assignment
from scrcl_infer.pipeline import Model
from scrcl_infer.report import write_report
from scrcl_infer.result import AssignedBlock, AssignOptions, GeneReport, MatrixReport
from scrcl_infer.tally import Collector, Tally
from scrcl_infer.target import Target
from tests.infer.test_pipeline import query
from tests.make_bundle import tiny_bundle

MANIFEST = tiny_bundle().manifest
MATRIX = MatrixReport("X", "counts", "whole numbers")


def genes(overlap: float = 1.0) -> GeneReport:
    return GeneReport(40, 40, overlap, "var_names as names", 0, 0, ("GENE7",))


def block(n: int, seed: int, start: int = 0) -> AssignedBlock:
    rng = np.random.default_rng(seed)
    return AssignedBlock(
        start=start,
        population=rng.integers(-1, 5, n).astype(np.int32),
        cell_type=rng.integers(-1, 4, n).astype(np.int32),
        confidence=rng.random(n, dtype=np.float32),
        margin=rng.random(n, dtype=np.float32),
        embedding=rng.normal(size=(n, 8)).astype(np.float32),
        map=rng.normal(size=(n, 2)).astype(np.float32),
    )


def sure_cells() -> Tally:
    tally, whole = Tally(MANIFEST), np.zeros(10, np.int32)
    tally.add(replace(block(10, 0), population=whole, cell_type=whole, confidence=np.ones(10, np.float32)))
    return tally


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6))
@settings(max_examples=30, deadline=None)
def test_counts_are_those_of_all_cells_together(sizes: list[int]) -> None:
    blocks = [block(n, seed, start=sum(sizes[:seed])) for seed, n in enumerate(sizes)]
    tally, collector = Tally(MANIFEST), Collector(MANIFEST, sum(sizes))
    for part in blocks:
        tally.add(part)
        collector.add(part)
    summary = tally.summarise(MATRIX, genes(), model_sha256="ab")
    names = np.array([t.name for t in MANIFEST.cell_types] + ["unknown"], dtype=object)
    types = np.concatenate([b.cell_type for b in blocks])
    expected, counts = np.unique(names[types].astype(str), return_counts=True)
    assert summary.cells_per_type == dict(zip(expected.tolist(), counts.tolist(), strict=True))
    assert summary.n_cells == sum(sizes)
    assert summary.n_unknown == (types == -1).sum()
    assert summary.n_empty == sum((b.population == -1).sum() for b in blocks)
    confidence = np.concatenate([b.confidence for b in blocks])
    assert summary.mean_confidence == pytest.approx(confidence.mean(dtype=np.float64) if len(confidence) else 0.0)
    answers = collector.finish(np.arange(sum(sizes)).astype(object), summary)
    assert answers.cell_type.tolist() == names[types].tolist()
    np.testing.assert_array_equal(answers.embedding, np.concatenate([b.embedding for b in blocks]))
    np.testing.assert_array_equal(answers.map, np.concatenate([b.map for b in blocks]))


def test_low_overlap_is_doubted_from_the_models_own_limit_on() -> None:
    tally = sure_cells()
    limit = MANIFEST.genes.warn_overlap
    (doubt,) = tally.summarise(MATRIX, genes(limit - 0.01), model_sha256="").warnings
    assert "GENE7" in doubt
    assert tally.summarise(MATRIX, genes(limit), model_sha256="").warnings == ()


def test_warnings_of_others_come_first() -> None:
    tally = sure_cells()
    tally.warn("the copy replaces something")
    assert tally.summarise(MATRIX, genes(), model_sha256="").warnings == ("the copy replaces something",)


def test_laps_add_up_to_the_total() -> None:
    tally = Tally(MANIFEST)
    for name in ("open", "assign", "finish"):
        tally.lap(name)
    timings = tally.stamp(tally.summarise(MATRIX, genes(), model_sha256="")).extra["timings_s"]
    assert list(timings) == ["open", "assign", "finish", "total"]
    assert timings["total"] == pytest.approx(sum(list(timings.values())[:-1]), abs=0.003)


def doubting(*, strangeness: bool) -> Model:
    """A model that finds many cells improbable, and some strange where it measures that."""
    bundle = tiny_bundle()
    calibration = replace(bundle.manifest.calibration, threshold=0.6)
    manifest = replace(bundle.manifest, calibration=calibration)
    return Model(replace(bundle, manifest=manifest, rejection=bundle.rejection if strangeness else None), sha256="a")


@pytest.mark.parametrize("vote", [False, True])
@pytest.mark.parametrize("reject", [False, True])
@pytest.mark.parametrize("strangeness", [False, True])
def test_each_unknown_cell_is_counted_under_one_reason(
    tmp_path: Path, *, strangeness: bool, reject: bool, vote: bool
) -> None:
    model, cells = doubting(strangeness=strangeness), query(200)
    alone = model.assign(cells, options=AssignOptions(reject=False))
    empty = alone.population == "unknown"
    strange = np.zeros(200, bool) if alone.strangeness is None else alone.strangeness > 0
    improbable = (alone.confidence < 0.6) & ~strange & ~empty
    expected = {
        "reject": reject,
        "rejected_by": "strangeness or probability" if strangeness else "probability",
        "threshold": 0.6,
        "temperature": 1.5,
        "n_unknown_strange": int(strange.sum()) * reject,
        "n_unknown_improbable": int(improbable.sum()) * reject,
        "n_unknown_empty": 1,
    }
    assert empty.sum() == 1
    assert 0 < improbable.sum() < 200
    assert (strange & (alone.confidence < 0.6)).any() == strangeness  # both reasons in one cell
    options = AssignOptions(reject=reject, vote=vote, block_size=30)
    answers = model.assign(cells, options=options)
    assert asdict(answers.summary.rejection) == expected
    assert answers.summary.n_unknown == sum(n for name, n in expected.items() if name.startswith("n_"))
    assert answers.summary.n_unknown == (answers.cell_type == "unknown").sum()
    cells.write_h5ad(tmp_path / "new.h5ad")
    summary = model.assign_file(tmp_path / "new.h5ad", Target(tmp_path / "out.h5ad"), options=options)
    write_report(summary, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["rejection"] == expected
    apply_assignment(cells, answers)
    for uns in (ad.read_h5ad(tmp_path / "out.h5ad").uns["scrcl"], cells.uns["scrcl"]):
        assert {name: uns[name] for name in expected} == expected


def test_answers_show_themselves_in_one_line() -> None:
    answers = Model(tiny_bundle(), sha256="a", threads=1).assign(query(1200))
    n_types, unknown = len(set(answers.cell_type) - {"unknown"}), answers.summary.n_unknown
    assert repr(answers) == f"Assignment(1,200 cells, {n_types} types, {unknown} unknown, model 'tiny')"
    assert str(answers) == repr(answers)
    assert 0 < unknown < 1000
