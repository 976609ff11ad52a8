"""scVI + Leiden with a stand-in for scvi-tools: what goes to it, what is made of its latent space; no network."""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata
import numpy as np
import pytest
import scanpy as sc
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.neighbors import kneighbors_graph

from benchmarks import environments, peers_scvi, scvi_env
from benchmarks.cache import Cache
from benchmarks.clustering import make_table
from benchmarks.datasets import Cells, DataSet
from benchmarks.environments import WORKERS, Environment
from benchmarks.peers_clustering import Graph
from benchmarks.peers_scvi import N_LATENT, SCVI_METHOD, prepare_counts, run_scvi
from benchmarks.runner import Plan, run_plan
from benchmarks.scvi_env import SCVI, compute_latent
from benchmarks.table import format_table
from scrcl_train.evaluate import score_clustering

TRUE = np.repeat(np.arange(3), [60, 40, 30])
N_GENES = 40


def make_cells() -> Cells:
    """Return three types, each with ten genes of its own, and ten genes that all have alike."""
    rates = np.full((3, N_GENES), 3.0)
    for code in range(3):
        rates[code, code * 10 : code * 10 + 10] = 30.0
    counts = sp.csr_matrix(np.random.default_rng(0).poisson(rates[TRUE]).astype(np.float32))
    genes = np.array([f"g{i}" for i in range(N_GENES)], dtype=object)
    return Cells("toy", counts, genes, None, None, 3, "0")


class InProcess(Environment):
    """Runs the worker script here."""

    def run(self, folder: Path) -> None:
        runpy.run_path(str(WORKERS / f"{self.worker or self.name}.py"))["main"](folder)


class FakeScvi:
    """Has the first columns of the log counts for a latent space, but only after training."""

    seen: list[NDArray[np.float32]]
    settings: SimpleNamespace

    def __init__(self, adata: anndata.AnnData, *, n_latent: int) -> None:
        assert "_scvi_uuid" in adata.uns
        self.counts, self.n_latent, self.trained = adata.X, n_latent, False

    @staticmethod
    def setup_anndata(adata: anndata.AnnData) -> None:
        adata.uns["_scvi_uuid"] = "toy"

    def train(self, **_: Any) -> None:
        self.seen.append(self.counts)
        self.trained = True

    def get_latent_representation(self) -> NDArray[np.float64]:
        assert self.trained
        noise = np.random.default_rng(self.settings.seed).normal(scale=0.01, size=(len(self.counts), self.n_latent))
        return np.log1p(self.counts[:, : self.n_latent]).astype(np.float64) + noise


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeScvi]:
    FakeScvi.seen, FakeScvi.settings = [], SimpleNamespace(seed=None)
    module: Any = SimpleNamespace(settings=FakeScvi.settings, model=SimpleNamespace(SCVI=FakeScvi))
    monkeypatch.setitem(sys.modules, "scvi", module)
    monkeypatch.setattr(scvi_env, "SCVI", InProcess("scvi", ()))
    return FakeScvi


def test_scvi_sees_raw_counts_of_scanpys_variable_genes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_scvi, "N_HVGS", 25)
    cells = make_cells()
    adata = anndata.AnnData(cells.counts.copy())
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=25, flavor="seurat")
    found = prepare_counts(cells)
    assert found.shape == (len(TRUE), 25)
    np.testing.assert_array_equal(found, cells.counts.toarray()[:, adata.var["highly_variable"]])


def test_the_latent_space_comes_back_and_follows_the_seed(fake: type[FakeScvi]) -> None:
    counts = make_cells().counts.toarray()
    first, again, other = (compute_latent(counts, seed=seed, n_latent=7) for seed in (3, 3, 4))
    assert first.dtype == np.float32
    assert first.shape == (len(TRUE), 7)
    np.testing.assert_allclose(first, np.log1p(counts[:, :7]), atol=0.1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(fake.seen[0], counts)


def quick_graph(latent: NDArray[np.float32]) -> Graph:
    """Link the 15 nearest without scanpy's weights, whose compilation takes longer than all other tests here."""
    assert latent.shape == (len(TRUE), N_LATENT)
    near = kneighbors_graph(latent, 15)
    adata = anndata.AnnData(np.zeros((len(latent), 1), dtype=np.float32), obsp={"connectivities": near})
    adata.uns["neighbors"] = {"connectivities_key": "connectivities", "params": {"method": "umap"}}
    return Graph(adata)


def test_one_fit_gives_both_columns(fake: type[FakeScvi], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers_scvi, "compute_graph", quick_graph)
    cells = make_cells()
    order = (
        np.arange(30).reshape(3, 10).T.ravel()
    )  # the stand-in shows the first genes only: those of each type in turn
    outcome = run_scvi(cells.counts.toarray()[:, order], cells, 0)
    assert len(fake.seen) == 1
    assert set(outcome.clusters) == {column.key for column in SCVI_METHOD.columns}
    assert score_clustering(TRUE.astype(str), outcome.clusters["scvi-leiden-k"]).ari == pytest.approx(1.0)


def test_without_its_environment_scvi_is_not_installed_and_the_note_says_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(environments, "_call", lambda *given: calls.append(given))
    monkeypatch.setattr(DataSet, "key", lambda _: {"data": "x"})
    method = replace(SCVI_METHOD, environment=replace(SCVI, parent=tmp_path))
    plan = Plan("clustering", (method,), (DataSet("toy"),), (0,))
    text = format_table(make_table(plan, run_plan(plan, Cache(tmp_path, tmp_path)), {"toy": 3}))
    assert not calls
    rows = {line for line in text.splitlines() if line.startswith("| toy")}
    assert rows == {"| toy (K = 3) | not installed |"}
    assert "scvi: not installed (scvi-tools==" in text
    assert "`python -m benchmarks.scvi_env`" in text
    assert method.missing() == SCVI.requirements
