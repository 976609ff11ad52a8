"""The transfer, robustness and distillation benchmarks' own steps: no network, no training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from numpy.typing import NDArray

from benchmarks import robustness
from benchmarks.code import hash_deciding_code, trace_modules
from benchmarks.conditions import CONDITIONS
from benchmarks.datasets import DataSet
from benchmarks.distillation import VARIANTS, answer_student, make_variants
from benchmarks.exchange import Query
from benchmarks.learners import choose_genes, learn_logistic, learn_nearest, log_expression
from benchmarks.methods import Column, Method, Outcome
from benchmarks.ours_transfer import Learned, Search, make_adata, name_by_majority
from benchmarks.pairs import PLACES_UNSEEN, Pair, Transfer
from benchmarks.runner import Plan, Results
from benchmarks.table import Table, format_table, scores_of
from benchmarks.transfer import make_table, score
from scrcl_train.distil import DistilConfig, DistilEpoch, distil
from scrcl_train.student import StudentConfig, predict
from tests.make_bundle import tiny_bundle

RNG = np.random.default_rng(0)
GENES = np.array([f"g{i}" for i in range(40)], dtype=object)


def make_pair(n: int = 90) -> tuple[Transfer, NDArray[np.object_]]:
    """Three types, each with ten genes of its own; the query has other genes besides, in another order."""
    codes = np.arange(n) % 3
    rates = np.full((3, 40), 2.0)
    for code in range(3):
        rates[code, code * 10 : code * 10 + 10] = 12.0
    labels = np.array(["a", "b", "c"], dtype=object)[codes]
    counts, asked = (sp.csr_matrix(RNG.poisson(rates[codes]).astype(np.float32)) for _ in range(2))
    order = RNG.permutation(np.arange(35))
    cells = Transfer(
        "toy", counts, GENES, labels, sp.csr_matrix(asked[:, order]), GENES[order], 3, is_log=False, fingerprint="toy"
    )
    return cells, labels


@dataclass(frozen=True)
class Toy:
    name: str = "toy"
    is_log: bool = False

    def key(self) -> dict[str, str]:
        return {"data": "toy"}

    def load(self) -> Any:
        return SimpleNamespace(cells=make_pair()[0], labels=make_pair()[1])


def test_log_expression_is_scanpys() -> None:
    cells, _ = make_pair()
    adata = anndata.AnnData(cells.counts.copy())
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    np.testing.assert_allclose(log_expression(cells.counts, is_log=False).toarray(), adata.X.toarray(), rtol=1e-5)
    assert log_expression(cells.counts, is_log=True) is cells.counts


@pytest.mark.parametrize("shared", [True, False])
def test_a_query_is_read_by_gene_name_and_a_missing_gene_is_zero(*, shared: bool) -> None:
    cells, _ = make_pair()
    reference = choose_genes(cells, shared=shared)
    assert len(reference.genes) == (35 if shared else 40)
    read = reference.read(Query(cells.query_counts, cells.query_genes))
    logged = log_expression(cells.query_counts, is_log=False).toarray()
    for column, name in enumerate(reference.genes):
        there = np.flatnonzero(cells.query_genes == name)
        expected = logged[:, there[0]] if len(there) else np.zeros(len(logged))
        np.testing.assert_allclose(read[:, column], expected)
    np.testing.assert_allclose(reference.scale(reference.logged).mean(axis=0), 0, atol=1e-2)


@pytest.mark.parametrize("learn", [learn_logistic, learn_nearest])
def test_simple_methods_find_separate_types_with_probabilities(learn: Any) -> None:
    cells, labels = make_pair()
    reference = choose_genes(cells, shared=True)
    answers = learn(reference, cells.labels, 0)(reference.read(Query(cells.query_counts, cells.query_genes)))
    found = score(answers, cells, labels)
    assert found["accuracy"] > 0.95
    assert 0 <= found["calibration_error"] < 0.2


def test_a_method_without_confidences_has_no_calibration_error() -> None:
    cells, labels = make_pair()
    found = score(np.stack([labels, np.full(len(labels), np.nan, dtype=object)]), cells, labels)
    assert found["accuracy"] == found["macro_f1"] == 1
    assert np.isnan(found["calibration_error"])


def test_populations_are_named_by_the_majority_of_their_own_cells() -> None:
    cells, _ = make_pair(6)
    cells = replace(cells, labels=np.array(["a", "a", "b", "c", "c", "c"], dtype=object))
    population = np.array(["P1", "P1", "P1", "P2", "P2", "P2"], dtype=object)

    def assign(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(population=population, cell_type=population, confidence=np.full(6, 0.5))

    model: Any = SimpleNamespace(assign=assign)
    named = name_by_majority(tiny_bundle(n_types=0), model, cells).manifest
    assert [p.cell_type for p in named.populations][:2] == ["a", "c"]
    assert [p.cell_type for p in named.populations][2:] == ["type C", "type D", "type A"]
    answers = Learned(model).answer(Query(cells.counts, cells.genes))
    assert list(answers[0]) == list(population)


def robust_results() -> tuple[Plan, Results]:
    keys = [robustness.column_of("knn", condition.name) for condition in CONDITIONS]
    scores = {key: {"macro_f1": 0.9 - 0.1 * i, "accuracy": 0.5, "weighted_f1": 0.5} for i, key in enumerate(keys)}
    method = next(m for m in robustness.METHODS if m.name == "knn")
    assert [c.key for c in method.columns] == keys
    call = {"columns": scores, "seconds": 1.0, "prepare_seconds": 0.0}
    return Plan("robustness", (method,), (Toy(),), (0,)), Results({("knn", "toy", 0): call})


def test_the_robustness_table_has_a_row_for_each_condition_and_a_picture(tmp_path: Path) -> None:
    table = robustness.make_table(*robust_results(), {"toy": 3})
    rows = [line for line in format_table(table).splitlines() if line.startswith("| toy, ")]
    assert rows[0] == "| toy, as measured (3 shared types) | **0.900 ± 0.000** |"
    assert rows[4] == "| toy, 5% of counts (3 shared types) | **0.500 ± 0.000** |"
    assert rows[7] == "| toy, 20% of genes (3 shared types) | **0.200 ± 0.000** |"
    paths = robustness.write_results(table, tmp_path)
    assert [path.suffix for path in paths] == [".md", ".json", ".svg"]
    assert "kNN on PCs" in paths[2].read_text() or paths[2].stat().st_size > 5000


def test_the_curves_hold_the_figures_of_their_own_conditions() -> None:
    from benchmarks.curves import curve_of

    table = robustness.make_table(*robust_results(), {"toy": 3})
    shares, means = curve_of(table, "knn", "toy", "depth")
    assert shares == [1.0, 0.5, 0.2, 0.1, 0.05]
    assert means == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5])
    shares, means = curve_of(table, "knn", "toy", "genes")
    assert shares == [1.0, 0.6, 0.4, 0.2]
    assert means == pytest.approx([0.9, 0.4, 0.3, 0.2])
    numbers, means = curve_of(table, "knn", "toy", "variable")
    assert numbers == ["all", "2,000", "1,000", "500"]
    assert means == pytest.approx([0.9, 0.1, 0.0, -0.1])


def transfer_table(scores: dict[str, float]) -> Table:
    methods = tuple(
        Method(key, (Column(key, key, "given", is_ours=key == "ours"),), lambda _: None, lambda *_: Outcome({}))
        for key in scores
    )
    calls = {
        (key, "toy", 0): {
            "columns": {key: {"accuracy": value, "macro_f1": value, "calibration_error": float("nan")}},
            "seconds": 1.0,
            "prepare_seconds": 0.0,
        }
        for key, value in scores.items()
    }
    return make_table(Plan("transfer", methods, (Toy(),), (0,)), Results(calls), {"toy": 3})


def test_the_differences_of_the_means_are_printed() -> None:
    table = transfer_table({"ours": 0.9, "peer": 0.75})
    assert "- ours less peer: accuracy +0.150, macro-F1 +0.150" in format_table(table)
    assert scores_of(table, "ours", "toy", "calibration_error") == []
    assert "| toy (3 shared types) | - | - |" in format_table(table)


@dataclass(frozen=True)
class Named(Toy):
    """Two rows of the same spots."""


def test_spots_without_their_places_count_in_a_mean_of_their_own() -> None:
    seen = PLACES_UNSEEN.partition(",")[0]
    scores = {"toy": 0.9, seen: 0.7, PLACES_UNSEEN: 0.5}
    method = Method("ours", (Column("ours", "ours", "given", is_ours=True),), lambda _: None, lambda *_: Outcome({}))
    calls = {
        ("ours", name, 0): {"columns": {"ours": {"macro_f1": value}}, "seconds": 1.0, "prepare_seconds": 0.0}
        for name, value in scores.items()
    }
    text = format_table(
        make_table(Plan("transfer", (method,), tuple(Named(name) for name in scores), (0,)), Results(calls), {})
    )
    assert "| **mean of all** | **0.800" in text
    assert "| **mean of all, places unseen** | **0.700" in text


def test_only_pairs_of_sections_show_where_spots_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells, labels = make_pair()
    places = RNG.normal(size=(len(labels), 2))
    for name in ("one", "two"):
        adata = make_adata(cells.counts, cells.genes, places)
        adata.obs["cell_type1"] = labels.astype(str)
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
    monkeypatch.setenv("SCRCL_DATA", str(tmp_path))
    told, untold = (Pair("p", DataSet("one"), DataSet("two"), sections=sections) for sections in (True, False))
    np.testing.assert_array_equal(told.load().cells.places, places)
    np.testing.assert_array_equal(told.load().cells.query_places, places)
    assert untold.load().cells.places is None
    assert told.key() != untold.key(), "an answer of one must not be taken for the other's"


def small_search(n: int = 60) -> tuple[Search, NDArray[np.object_], sp.csr_matrix]:
    cells, labels = make_pair(n)
    codes = np.arange(n) % 3
    found = SimpleNamespace(
        populations=SimpleNamespace(labels=codes, n_populations=3),
        embedding=np.eye(3, dtype=np.float32)[codes] + 0.1,
        map=RNG.normal(size=(n, 2)).astype(np.float32),
    )
    start: Any = SimpleNamespace(found=found)
    return start, labels, cells.counts


def test_types_only_learns_from_nothing_but_the_types() -> None:
    start, labels, counts = small_search()
    library = np.asarray(counts.sum(axis=1), dtype=np.float32)
    variants = make_variants(start, labels)
    assert list(variants) == [key for key, *_ in VARIANTS]
    for key, _, teacher, augmented in VARIANTS:
        targets, recipe = variants[key]
        epochs: list[DistilEpoch] = []
        small = DistilConfig(StudentConfig(hidden=16, dim=4), recipe.augment, epochs=3, min_steps=3)
        distil(counts, library, targets, config=small, on_epoch=epochs.append)
        silent = all(e.losses["embedding"] == 1 and e.losses["population"] == 0 for e in epochs)
        assert silent is not teacher
        assert all(e.losses["type"] > 0 for e in epochs)
        assert (recipe.augment.thin, recipe.augment.max_gene_dropout > 0) == (augmented, augmented)
    types_only, _ = variants["types"]
    assert types_only.types is not None
    np.testing.assert_array_equal(types_only.types, variants["full"][0].types)


def test_a_student_is_asked_by_gene_name() -> None:
    start, labels, counts = small_search()
    library = np.asarray(counts.sum(axis=1), dtype=np.float32)
    targets, _ = make_variants(start, labels)["full"]
    student = distil(counts, library, targets, config=DistilConfig(StudentConfig(hidden=16), epochs=2, min_steps=2))
    straight = predict(student, counts, library).log_type_posterior
    assert straight is not None
    order = RNG.permutation(40)
    answers = answer_student(student, GENES, labels, Query(sp.csr_matrix(counts[:, order]), GENES[order]))
    np.testing.assert_allclose(answers[1].astype(float), np.exp(straight.max(axis=1)), rtol=1e-5)
    np.testing.assert_array_equal(answers[0], np.array(["a", "b", "c"])[straight.argmax(axis=1)])


def test_the_version_of_our_methods_follows_the_imports_and_leaves_out_what_decides_nothing(tmp_path: Path) -> None:
    found = trace_modules(("scrcl_train.pipeline", "scrcl_infer.pipeline"))
    assert {"scrcl_train.distil", "scrcl_train.consensus", "scrcl_infer.assign", "scrcl_infer.genes"} <= set(found)
    assert not {"scrcl_train.card", "scrcl_train.write", "scrcl_train.cli", "scrcl_infer.write_h5ad"} & set(found)
    for package, modules in {
        "scrcl_train": {"pipeline": "from scrcl_train import card, deep\n", "card": "A = 1\n", "deep": "A = 1\n"},
        "scrcl_infer": {"pipeline": "A = 1\n"},
    }.items():
        (tmp_path / package).mkdir()
        for name, text in modules.items():
            (tmp_path / package / f"{name}.py").write_text(text)
    before = hash_deciding_code(tmp_path)
    (tmp_path / "scrcl_train" / "card.py").write_text("A = 2\n")
    assert hash_deciding_code(tmp_path) == before
    (tmp_path / "scrcl_train" / "deep.py").write_text("A = 2\n")
    assert hash_deciding_code(tmp_path) != before
