"""The benchmark's own steps: vote, bisection, cache, label-selected epoch, table; scores are tested with `evaluate`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import scipy.sparse as sp

from benchmarks.__main__ import choose_methods
from benchmarks.cache import Cache, Call
from benchmarks.clustering import METHODS, find_method, make_table, score
from benchmarks.code import hash_code
from benchmarks.datasets import NINE, Cells, DataSet, choose_sets
from benchmarks.environments import Environment
from benchmarks.methods import Column, Method, Outcome
from benchmarks.ours import cluster_cosine, paper_config, train_paper
from benchmarks.peers_clustering import average_neighbours, cluster_and_merge
from benchmarks.peers_spatial import spot_graph, vote
from benchmarks.runner import Plan, Results, list_calls, run_plan, score_outcome
from benchmarks.table import format_table, to_json
from scrcl_infer.errors import InputError
from scrcl_train.features import prepare_features
from scrcl_train.trainer import fit

if TYPE_CHECKING:
    from anndata import AnnData

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "spatial.npz"


def cells(n: int = 6, n_types: int = 2) -> Cells:
    return Cells(
        "toy", sp.csr_matrix((n, 3), dtype=np.float32), np.array(["a", "b", "c"], object), None, None, n_types, "0"
    )


def test_vote_and_spot_graph_equal_the_authors() -> None:
    golden = np.load(GOLDEN)
    for n_voters in (50, 10):
        voted = vote(golden["labels"], golden["spatial"], n_voters)
        np.testing.assert_array_equal(voted, golden[f"refined_labels_{n_voters}"])
    np.testing.assert_array_equal(spot_graph(golden["spatial"], 6).toarray(), golden["adj_6nn"])


def test_averaging_is_the_mean_over_the_symmetric_graph() -> None:
    values = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    nearest = np.argsort(-(unit @ unit.T), axis=1)[:, :16]
    links = np.zeros((60, 60), bool)
    np.put_along_axis(links, nearest, values=True, axis=1)
    links |= links.T
    expected = np.stack([values[row].mean(axis=0) for row in links])
    np.testing.assert_allclose(average_neighbours(values), expected, rtol=1e-4, atol=1e-6)


def test_over_clustering_and_merging_finds_separate_groups() -> None:
    rng = np.random.default_rng(0)
    true = np.repeat([0, 1, 2], [100, 40, 20])
    values = (np.eye(3)[true] * 20 + rng.normal(size=(160, 3))).astype(np.float32)
    found = score(cluster_and_merge(values, 3, seed=0), cells(160, 3), true)
    assert found["ari"] == pytest.approx(1.0)


def test_the_label_selected_epoch_is_the_best_by_nmi_and_the_earliest_of_equals() -> None:
    labels = np.array(["a", "a", "a", "b", "b", "b"])
    right, wrong = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 0, 1, 0, 1])
    outcome = Outcome({"last": wrong}, {"best": {5: wrong, 10: right, 15: right}})
    found = score_outcome(outcome, cells(), labels, score)
    assert found["best"]["epoch"] == 10
    assert found["best"]["ari"] == 1.0 > found["last"]["ari"]


def test_the_paper_presets_last_epoch_is_that_of_the_trainer(simulated: AnnData) -> None:
    config = paper_config(n_types=6, epochs=7)
    small = dataclasses.replace(config, teacher=dataclasses.replace(config.teacher, hidden=16, learning_rate=1e-2))
    features = prepare_features(sp.csr_matrix(simulated.X), small)
    found = train_paper(features, small, 6, seed=3)
    teacher = fit(features, small, seed=3)
    assert sorted(found) == [5, 7]
    expected = cluster_cosine(np.concatenate([teacher.z_1, teacher.z_2], axis=1), 6, seed=3)
    np.testing.assert_array_equal(found[7], expected)


def call(**changes: Any) -> Call:
    return dataclasses.replace(Call("clustering", "m", "toy", 0, {"version": "1", "settings": {"k": 3}}), **changes)


def test_the_cache_answers_only_the_very_same_call(tmp_path: Path) -> None:
    cache = Cache(tmp_path, tmp_path / "published")
    cache.put(call(), {"seconds": 1.5})
    assert cache.get(call()) == {"seconds": 1.5}
    for other in (
        call(seed=1),
        call(data="other"),
        call(method="n"),
        call(key={"version": "2", "settings": {"k": 3}}),
        call(key={"version": "1", "settings": {"k": 4}}),
    ):
        assert cache.get(other) is None
    assert not list(tmp_path.rglob("*.part"))


def test_a_fresh_clone_goes_on_from_published_calls(tmp_path: Path) -> None:
    published = tmp_path / "published"
    first = Cache(tmp_path / "first", published)
    other = call(key={"version": "2"}, seed=1)
    first.put(call(), {"seconds": 1.5})
    first.put(other, {"seconds": 2.5})
    first.publish("clustering", [call(), other, call(seed=9)])
    fresh = Cache(tmp_path / "fresh", published)
    assert fresh.get(call()) == {"seconds": 1.5}
    # The same method, set and seed under new code takes the place of the old; all else stays.
    newer = call(key={"version": "3"})
    fresh.put(newer, {"seconds": 0.5})
    fresh.publish("clustering", [newer])
    again = Cache(tmp_path / "again", published)
    assert again.get(newer) == {"seconds": 0.5}
    assert again.get(other) == {"seconds": 2.5}
    assert again.get(call()) is None


def test_a_table_of_stored_calls_needs_no_peer_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DataSet, "key", lambda _: {"data": "x"})
    absent = Environment("absent", ("no-such-peer==1",), parent=tmp_path)
    method = Method("x", (Column("x", "x", "given"),), lambda _: None, lambda *_: Outcome({}), environment=absent)
    plan = Plan("clustering", (method,), (DataSet("toy"),), (0, 1), jobs=0)
    cache = Cache(tmp_path / "cache", tmp_path / "published")
    (first, _), (second, _) = list_calls(plan)
    cache.put(first, {"columns": {"x": {"ari": 0.25}}, "seconds": 1.0, "prepare_seconds": 1.0})
    results = run_plan(plan, cache)
    assert set(results.calls) == {("x", "toy", 0)}
    assert not absent.folder.exists()
    assert "| toy (K = 2) | **0.250 ± 0.000 (1 seed)** |" in format_table(make_table(plan, results, {"toy": 2}))
    # With workers, too, a peer that is not there makes no calls.
    on_request = dataclasses.replace(absent, on_request=True)
    lacking = dataclasses.replace(plan, methods=(dataclasses.replace(method, environment=on_request),), jobs=1)
    assert set(run_plan(lacking, cache).calls) == {("x", "toy", 0)}
    assert cache.get(second) is None


def test_the_version_of_our_code_is_blind_to_comments_and_docstrings(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('"""Doc."""\n\n\ndef f(x):\n    """Say."""\n    return x + 1  # one\n')
    before = hash_code(["a"], tmp_path)
    (tmp_path / "a.py").write_text('"""Other."""\ndef f(x):\n    return x + 1\n')
    assert hash_code(["a"], tmp_path) == before
    (tmp_path / "a.py").write_text("def f(x):\n    return x + 2\n")
    assert hash_code(["a"], tmp_path) != before


def test_methods_are_chosen_by_name() -> None:
    assert choose_methods("all", METHODS, find_method) == METHODS
    chosen = choose_methods("averaged,paper@20", METHODS, find_method)
    assert [m.name for m in chosen] == ["averaged", "paper@20"]
    assert chosen[1].settings["config"]["teacher"]["epochs"] == 20
    assert not any(c.is_ours for m in choose_methods("peers", METHODS, find_method) for c in m.columns)
    with pytest.raises(InputError, match=r"Unknown method 'magic'.*over-merge"):
        choose_methods("magic", METHODS, find_method)


def test_sets_are_chosen_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRCL_DATA", str(tmp_path))
    for name in (*NINE, "extra"):
        (tmp_path / f"{name}.h5ad").touch()
    group = tuple(DataSet(name) for name in (*NINE, "absent"))
    assert [item.name for item in choose_sets("nine", group)] == list(NINE)
    assert choose_sets("extra", group) == (DataSet("extra"),)
    with pytest.raises(InputError, match="holds no absent"):
        choose_sets("all", group)


def test_the_table_gives_means_over_seeds_and_never_calls_label_selection_best() -> None:
    columns = (
        Column("fair", "fair", "given"),
        Column("chosen", "chosen", "given", note="labels were used", uses_labels=True),
    )
    there = Method("m", columns, lambda _: None, lambda *_: Outcome({}))
    absent = Method(
        "x", (Column("x", "x", "given"),), lambda _: None, lambda *_: Outcome({}), needs=("no_such_module",)
    )
    plan = Plan("clustering", (there, absent), (DataSet("toy"),), (0, 1))

    def result(ari: float) -> dict[str, Any]:
        metrics = {"nmi": 0.5, "accuracy": 0.5, "macro_f1": 0.5, "n_clusters": 2.0, "k_error": 0.0}
        columns = {"fair": {"ari": ari, **metrics}, "chosen": {"ari": 0.9, **metrics}}
        return {"columns": columns, "seconds": 1.0, "prepare_seconds": 2.0}

    table = make_table(plan, Results({("m", "toy", 0): result(0.4), ("m", "toy", 1): result(0.6)}), {"toy": 2})
    row = next(line for line in format_table(table).splitlines() if line.startswith("| toy (K = 2)"))
    assert row == "| toy (K = 2) | **0.500 ± 0.100** | 0.900 ± 0.000 | not installed |"
    assert "† chosen: labels were used" in format_table(table)
    stored = json.loads(json.dumps(to_json(table), allow_nan=False))
    assert stored["scores"]["fair"]["toy"]["ari"] == [0.4, 0.6]
    assert stored["not_installed"] == {"x": ["no_such_module"]}
