"""Queries made harder, against numpy and scanpy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from benchmarks.conditions import Condition
from benchmarks.exchange import Query


def test_thinned_counts_are_binomial_and_the_genes_left_are_nested() -> None:
    query = Query(sp.csr_matrix(np.full((200, 50), 20.0, dtype=np.float32)), np.arange(50).astype(str).astype(object))
    thinned = Condition(depth=0.1).apply(query, seed=1).counts.toarray()
    assert thinned.max() <= 20
    assert thinned.mean() == pytest.approx(2.0, abs=0.06)
    assert thinned.var() == pytest.approx(20 * 0.1 * 0.9, rel=0.1)
    kept = [set(Condition(genes=share).apply(query, seed=1).genes) for share in (1.0, 0.6, 0.2)]
    assert [len(names) for names in kept] == [50, 30, 10]
    assert kept[0] > kept[1] > kept[2]
    again = Condition(depth=0.1).apply(query, seed=1).counts.toarray()
    np.testing.assert_array_equal(thinned, again)
    assert set(Condition(genes=0.2).apply(query, seed=2).genes) != kept[2]


def test_a_query_cut_to_variable_genes_keeps_those_that_scanpy_says() -> None:
    import anndata as ad
    import scanpy as sc

    rng = np.random.default_rng(0)
    counts = sp.csr_matrix(rng.poisson(rng.gamma(0.5, 2, (100, 60))).astype(np.float32))
    names = np.array([f"g{i}" for i in range(60)], dtype=object)
    cut = Condition(variable=20).apply(Query(counts, names), seed=3)
    adata = ad.AnnData(counts.copy(), var={"name": names})
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=20, flavor="seurat")
    kept = adata.var["highly_variable"].to_numpy()
    assert list(cut.genes) == list(names[kept])
    np.testing.assert_array_equal(cut.counts.toarray(), counts[:, kept].toarray())
    assert Condition(variable=2000).name == "2,000 variable genes"
