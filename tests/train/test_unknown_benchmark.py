"""The unknown benchmark's cases and scores, on made-up cells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from benchmarks import celltypist_env, left_out, unknown
from benchmarks.datasets import Cells, DataSet, Labelled
from benchmarks.environments import Environment
from benchmarks.left_out import LeftOut, Source, choose_types
from benchmarks.runner import Plan, Results
from benchmarks.table import format_table
from scrcl_infer.errors import InputError

SIZES = {"a": 200, "b": 100, "c": 60, "d": 50, "e": 40, "f": 6}


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> LeftOut:
    labels = np.repeat(np.array(list(SIZES), dtype=object), list(SIZES.values()))
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(5, (labels.size, 12)).astype(np.float32))
    genes = np.array([f"g{i}" for i in range(12)], dtype=object)
    batch = np.where(np.arange(labels.size) % 2, "one", "two").astype(object)
    data = Labelled(Cells("made up", counts, genes, batch, None, 6, "x"), labels)
    monkeypatch.setattr(left_out, "load_set", lambda _: data)
    monkeypatch.setattr(DataSet, "key", lambda _: {"data": "x"})
    return LeftOut(Source(DataSet("made up"), batches=("one",)), 2)


def test_every_type_that_is_large_enough_is_left_out_in_turn(case: LeftOut) -> None:
    labels = np.repeat(np.array(list("abcdefgh"), dtype=object), [70, 80, 90, 60, 50, 40, 30, 5])
    assert choose_types(labels) == list("cbadefg")
    with pytest.raises(InputError, match="2 of 2 types"):
        choose_types(labels[:150])
    # Of "f" batch one has three cells, of "e" twenty.
    assert [one.load().left_out for one in unknown.choose_sets("all", (case.source,))] == list("abcde")
    assert unknown.choose_sets("made up 2", (case.source,)) == (case,)
    with pytest.raises(InputError, match="made up 1, made up 2"):
        unknown.choose_sets("blood", (case.source,))


def test_the_left_out_type_is_not_learned_and_a_fifth_is_held_out(case: LeftOut) -> None:
    asked = case.load()
    assert asked.left_out == "b"
    assert set(asked.cells.labels) == set("acdef")
    names, sizes = np.unique(asked.labels.astype(str), return_counts=True)
    found = dict(zip(names.tolist(), sizes.tolist(), strict=True))
    n_known = sum(n // 2 for name, n in SIZES.items() if name != "b")
    assert found["known 1"] == pytest.approx(n_known / 5, abs=3)
    assert found["novel 1"] == SIZES["b"]
    assert found["batch 1"] == n_known
    totals = {name: asked.cells.query_counts[asked.labels == name].sum() for name in ("novel 1", "novel 0.05")}
    assert totals["novel 0.05"] == pytest.approx(0.05 * totals["novel 1"], rel=0.2)


def test_scores_are_those_of_their_definition(case: LeftOut) -> None:
    groups = ["known 1", "known 1", "novel 1", "novel 1", "batch 1", "known 0.2", "novel 0.2", "known 0.05"]
    what = np.array([*groups, "novel 0.05"], dtype=object)
    confidence = np.array([0.9, 0.4, 0.5, 0.1, 0.3, 1, 0, 0, 1])
    rejected = np.array([0, 1, 0, 1, 1, 0, 1, 1, 0])
    found = unknown.score(np.stack([confidence, rejected]), case.load().cells, what)
    assert (found["auroc 1"], found["auroc 0.2"], found["auroc 0.05"]) == (0.75, 1, 0)
    assert (found["kept 1"], found["caught 1"], found["batch kept 1"]) == (0.5, 0.5, 0.0)
    assert "batch kept 0.2" not in found
    peer = unknown.score(np.stack([confidence, np.full(len(what), np.nan)]), case.load().cells, what)
    assert peer["auroc 1"] == 0.75
    assert "kept 1" not in peer


class Typist(Environment):
    """Is the surer of a cell the more counts it has; insists on the learned labels."""

    def run(self, folder: Path) -> None:
        with np.load(folder / "reference.npz", allow_pickle=False) as reference:
            assert set(reference["labels"]) == set("acdef")
            assert len(reference["labels"]) == reference["shape"][0]
        with np.load(folder / "query0.npz", allow_pickle=False) as query:
            assert "labels" not in query
            shape = tuple(query["shape"])
            matrix = sp.csr_matrix((query["data"], query["indices"], query["indptr"]), shape=shape)
        confidence = matrix.sum(axis=1).A1 / 1000
        np.savez(folder / "answers0.npz", types=np.full(shape[0], "a"), confidence=confidence)


def test_celltypist_answers_with_its_probability_and_no_rule(case: LeftOut, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(celltypist_env, "CELLTYPIST", Typist("celltypist", ()))
    method, asked = unknown.find_method("celltypist", unknown.METHODS), case.load()
    assert method is not None
    answers = method.run(method.prepare(asked.cells), asked.cells, 0).clusters[method.columns[0].key]
    np.testing.assert_allclose(answers[0], asked.cells.query_counts.sum(axis=1).A1 / 1000, rtol=1e-6)
    found = unknown.score(answers, asked.cells, asked.labels)
    assert set(found) == {"auroc 1", "auroc 0.2", "auroc 0.05"}


def test_sets_count_alike_however_many_types_they_have(case: LeftOut) -> None:
    other = Source(DataSet("made up, too"))
    cases = (case, LeftOut(case.source, 3), LeftOut(other, 1))
    method = unknown.find_method("logistic", unknown.METHODS)
    assert method is not None
    aurocs = dict(zip((one.name for one in cases), (0.2, 0.4, 0.9), strict=True))
    calls = {
        ("logistic", name, 0): {"columns": {"logistic": {"auroc 1": x}}, "seconds": 1.0, "prepare_seconds": 1.0}
        for name, x in aurocs.items()
    }
    plan = Plan("unknown", (method,), cases, (0,))
    table = unknown.make_table(plan, Results(calls), dict.fromkeys(aurocs, 4))
    text = format_table(table)
    assert "| **mean of all types** | **0.500 ± 0.000** |" in text
    assert "| auroc 1 | 0.600 |" in table.closing
    assert "| kept 1 |  |" in table.closing
