"""`scrcl_infer.tally` against counting with numpy over all cells at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrcl_infer.result import AssignedBlock, GeneReport, MatrixReport
from scrcl_infer.tally import Collector, Tally
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
