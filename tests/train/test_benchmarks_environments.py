"""Environments of their own for peers, and what goes into them and comes out; no network, nothing is installed."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from benchmarks import clustering, environments, robustness, spatial, transfer, unknown
from benchmarks.environments import Environment, WorkerError
from benchmarks.exchange import Query, ask_worker
from benchmarks.methods import Column, Method, Outcome
from benchmarks.runner import Plan, run_plan
from benchmarks.table import format_table
from benchmarks.transfer import make_table

METHODS = (*clustering.METHODS, *spatial.METHODS, *transfer.METHODS, *robustness.METHODS, *unknown.METHODS)


@dataclass(frozen=True)
class Toy:
    name: str = "toy"

    def key(self) -> dict[str, str]:
        return {"data": "toy"}

    def load(self) -> Any:
        return None


def fake_environment(parent: Path) -> Environment:
    return Environment("peer", ("peer==1.0", "other==2.0"), parent=parent)


def test_an_environment_is_ready_only_with_the_same_requirements(tmp_path: Path) -> None:
    environment = fake_environment(tmp_path)
    assert not environment.is_ready()
    environment.folder.mkdir()
    (environment.folder / "installed.txt").write_text("peer==1.0\nother==2.0\n")
    assert environment.is_ready()
    assert environment.make()
    assert not replace(environment, requirements=("peer==1.1",)).is_ready()


def test_without_a_network_the_column_says_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        msg = "ERROR: No matching distribution found for peer==1.0"
        raise WorkerError(msg)

    monkeypatch.setattr(environments, "_call", fail)
    environment = fake_environment(tmp_path)
    method = Method("peer", (Column("peer", "Peer", "given"),), lambda _: None, lambda *_: Outcome({}))
    plan = Plan("transfer", (replace(method, environment=environment),), (Toy(),), (0,))
    table = make_table(plan, run_plan(plan, SimpleNamespace(get=lambda _: None)), {"toy": 3})  # type: ignore[arg-type]
    assert plan.methods[0].missing() == environment.requirements
    assert "| toy (3 shared types) | not installed |" in format_table(table)
    assert not environment.folder.exists()


def test_a_large_environment_is_not_made_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(environments, "_call", lambda *given: calls.append(given))
    large = replace(fake_environment(tmp_path), on_request=True)
    method = Method("peer", (Column("peer", "Peer", "given"),), lambda _: None, lambda *_: Outcome({}))
    plan = Plan("transfer", (replace(method, environment=large),), (Toy(),), (0,))
    run_plan(plan, SimpleNamespace(get=lambda _: None))  # type: ignore[arg-type]
    assert not calls
    large.folder.mkdir()  # as `python -m venv` would
    assert large.make()
    assert len(calls) == 2


def test_two_workers_share_one_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(environments, "_call", lambda command, *_: calls.append(command))
    first = fake_environment(tmp_path)
    second = replace(first, worker="other")
    first.run(tmp_path)
    second.run(tmp_path)
    assert [Path(command[2]).name for command in calls] == ["peer.py", "other.py"]
    assert calls[0][0] == calls[1][0]
    (first.folder).mkdir()
    (first.folder / "installed.txt").write_text("peer==1.0\nother==2.0\n")
    assert second.is_ready()


def test_every_environment_has_its_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(environments, "_call", lambda command, *_: calls.append(command))
    found = [method.environment for method in METHODS if method.environment is not None]
    for environment in found:
        environment.run(tmp_path)
    assert {Path(command[2]).stem for command in calls} == {"celltypist", "scvi", "scanvi"}
    assert all(Path(command[2]).is_file() for command in calls)
    assert len({environment.folder for environment in found}) == 2


class Echo(Environment):
    """Answers with the labels of the reference in turn."""

    def run(self, folder: Path) -> None:
        reference = np.load(folder / "reference.npz", allow_pickle=False)
        settings = json.loads((folder / "settings.json").read_text())
        assert settings["is_log"] is False
        for number in range(settings["queries"]):
            query = np.load(folder / f"query{number}.npz", allow_pickle=False)
            assert "labels" not in query
            n = int(query["shape"][0])
            np.savez(
                folder / f"answers{number}.npz",
                types=np.resize(reference["labels"], n),
                confidence=np.full(n, query["data"].sum() / 1e6),
            )


def test_a_worker_gets_the_cells_and_gives_types_and_confidences() -> None:
    counts = sp.csr_matrix(np.arange(24, dtype=np.float32).reshape(6, 4))
    genes, labels = np.array(list("abcd"), dtype=object), np.array(list("xyzxyz"), dtype=object)
    queries = [Query(counts, genes), Query(counts[:5], genes)]
    answers = ask_worker(Echo("echo", ()), counts, genes, labels, queries, settings={"is_log": False})
    assert [a.shape for a in answers] == [(2, 6), (2, 5)]
    np.testing.assert_array_equal(answers[0][0], labels)
    np.testing.assert_allclose(answers[1][1].astype(float), counts[:5].sum() / 1e6)


def test_a_worker_that_fails_says_its_last_line() -> None:
    with pytest.raises(WorkerError, match=r"^ValueError: no$"):
        environments._call((environments.sys.executable, "-c", "raise ValueError('no')"), 60)
