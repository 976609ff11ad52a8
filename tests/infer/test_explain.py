"""`scrcl_infer.explain`: against pandas, however the file is cut, and on genes that everybody knows."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray

from scrcl_infer.blocks import RowBlock
from scrcl_infer.bundle import write_bundle
from scrcl_infer.contract import Bundle, SpatialSpec
from scrcl_infer.errors import OutputError
from scrcl_infer.explain import DrivingGene, DrivingGenes, check_explanation, write_explanation
from scrcl_infer.pipeline import Model, load
from scrcl_infer.result import AssignedBlock, Assignment, AssignOptions
from scrcl_infer.spatial import Spots, smooth_counts
from scrcl_infer.target import Target
from tests.infer.test_pipeline import in_model_order, query
from tests.make_bundle import random_counts, tiny_bundle

EXPLAIN = AssignOptions(explain=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(write_bundle(tiny_bundle(), tmp_path_factory.mktemp("models") / "tiny"), threads=1)


def by_pandas(answers: Assignment, logged: NDArray[np.float64], bundle: Bundle, found: NDArray[np.bool_]) -> Any:
    """One row a listed gene of a type, worked out cell by cell from the answers."""
    genes, populations = list(bundle.manifest.genes.names), [p.name for p in bundle.manifest.populations]
    rows = []
    expr = pd.DataFrame(logged, columns=genes)
    seen = answers.population != "unknown"
    for name in [t.name for t in bundle.manifest.cell_types]:
        mine = answers.cell_type == name
        if not mine.any():
            continue
        of = [populations.index(p) for p in answers.population[mine]]
        table = pd.DataFrame(
            {
                "association": bundle.gene_graph.association[of].astype(np.float64).mean(axis=0),
                "mean_expression": expr[mine].mean().to_numpy(),
                "mean_others": expr[~mine & seen].mean().to_numpy(),
                "share_expressing": (expr[mine] > 0).mean().to_numpy(),
            },
            index=genes,
        )
        table["score"] = table.association * (table.mean_expression - table.mean_others)
        wanted = found & (table.association > 0) & (table.mean_expression > table.mean_others)
        table = table[wanted].sort_values("score", ascending=False)[:20].assign(cell_type=name, n_cells=mine.sum())
        rows.append(table)
    return pd.concat(rows)


def test_the_table_is_that_of_pandas(model: Model) -> None:
    adata = query(n=150)
    answers = model.assign(adata, options=EXPLAIN)
    counts, library = in_model_order(adata)
    logged = np.log1p(counts.astype(np.float64) / library * 1e4)
    found = np.isin(model.manifest.genes.names, adata.var_names)
    expected = by_pandas(answers, logged, model.bundle, found)
    got = pd.DataFrame([row for row in answers.summary.extra["explanation"] if row["in_query"]]).set_index("gene")
    assert got.index.tolist() == expected.index.tolist()
    assert got.cell_type.tolist() == expected.cell_type.tolist()
    assert len(set(got.cell_type)) > 1
    for column in ("n_cells", "association", "mean_expression", "mean_others", "share_expressing", "score"):
        np.testing.assert_allclose(got[column].astype(float), expected[column].astype(float), atol=2e-6)
    first = got.groupby("cell_type")["rank"].first()
    assert (first == 1).all()


def test_genes_that_the_query_lacks_are_said(model: Model) -> None:
    answers = model.assign(query(n=150), options=EXPLAIN)
    lacking = [row for row in answers.summary.extra["explanation"] if not row["in_query"]]
    assert lacking
    assert {row["gene"] for row in lacking} <= {"GENE0", "GENE1"}  # the two that `query` leaves out
    assert all(row["association"] > 0 for row in lacking)
    assert all(row[key] is None for row in lacking for key in ("rank", "score", "mean_expression", "difference"))


@pytest.mark.parametrize("vote", [False, True])
def test_blocks_and_threads_do_not_matter(model: Model, vote: bool) -> None:  # noqa: FBT001
    adata = query(n=150)
    whole = model.assign(adata, options=AssignOptions(explain=True, vote=vote)).summary
    for options in (
        AssignOptions(explain=True, vote=vote, block_size=7),
        AssignOptions(explain=True, vote=vote, block_size=1, threads=2),
    ):
        assert model.assign(adata, options=options).summary.extra["explanation"] == whole.extra["explanation"]
    assert {row["cell_type"]: row["n_cells"] for row in whole.extra["explanation"]} == {
        name: n for name, n in whole.cells_per_type.items() if name != "unknown"
    }


def test_nothing_is_added_up_unasked(model: Model) -> None:
    assert "explanation" not in model.assign(query()).summary.extra


def test_sums_are_exact_whatever_the_blocks() -> None:
    """A thousand cuts add up to the same bits."""
    bundle = tiny_bundle()
    counts, library = random_counts(1000, 40, seed=5)
    rng = np.random.default_rng(0)
    cell_type, population = rng.integers(-1, 4, 1000, dtype=np.int32), rng.integers(0, 5, 1000, dtype=np.int32)
    none = np.zeros(1000, np.float32)

    def run(size: int) -> list[dict[str, Any]]:
        drivers = DrivingGenes(bundle, np.ones(40, dtype=bool))
        for i in range(0, 1000, size):
            r = slice(i, i + size)
            block = AssignedBlock(i, population[r], cell_type[r], none[r], none[r], none[r, None], none[r, None])
            drivers.add(RowBlock(i, counts[r], library[r]), block)
        return drivers.explain()

    assert run(1000) == run(1) == run(37)


def test_a_file_of_one_type_has_no_others(model: Model) -> None:
    adata = query(n=150)
    types = model.assign(adata).cell_type
    known = next(name for name in types if name != "unknown")
    rows = model.assign(adata[types == known].copy(), options=EXPLAIN).summary.extra["explanation"]
    assert {row["cell_type"] for row in rows} == {known}
    ranked = [row for row in rows if row["in_query"]]
    assert all(row["mean_others"] is None and row["difference"] == row["mean_expression"] for row in ranked)


def test_a_spatial_bundle_explains_the_smoothed_expression() -> None:
    spec = SpatialSpec(n_neighbors=4, n_steps=2)
    model = Model(tiny_bundle(spatial=spec), sha256="0", threads=1)
    counts, _ = random_counts(60, 40, seed=2)
    adata = ad.AnnData(sp.csr_matrix(counts))
    adata.var_names = [f"GENE{i}" for i in range(40)]
    adata.obsm["spatial"] = np.random.default_rng(0).random((60, 2))
    answers = model.assign(adata, options=EXPLAIN)
    places = Spots(adata.obsm["spatial"], np.zeros(60, dtype=np.int64))
    smoothed, _ = smooth_counts(sp.csr_matrix(counts), counts.sum(axis=1), places, spec)
    logged = np.log1p(smoothed.astype(np.float64))
    rows = [row for row in answers.summary.extra["explanation"] if row["in_query"]]
    assert rows
    for row in rows:
        mine = answers.cell_type == row["cell_type"]
        expected = logged[mine, int(row["gene"].removeprefix("GENE"))].mean()
        np.testing.assert_allclose(row["mean_expression"], expected, atol=2e-6)


@pytest.mark.parametrize(("name", "separator"), [("genes.csv", ","), ("genes.TSV", "\t")])
def test_the_table_holds_what_is_known(model: Model, tmp_path: Path, name: str, separator: str) -> None:
    rows = model.assign(query(n=150), options=EXPLAIN).summary.extra["explanation"]
    write_explanation(rows, tmp_path / name)
    read = list(csv.DictReader((tmp_path / name).read_text(encoding="utf-8").splitlines(), delimiter=separator))
    assert list(read[0]) == list(DrivingGene.__dataclass_fields__)
    for line, row in zip(read, rows, strict=True):
        assert line["in_query"] == ("yes" if row["in_query"] else "no")
        assert line["score"] == ("" if row["score"] is None else str(row["score"]))
    with pytest.raises(OutputError, match="--force"):
        write_explanation(rows, tmp_path / name)


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"\.csv, \.tsv"):
        check_explanation(tmp_path / "genes.xlsx", force=False)


def test_a_streamed_file_is_explained_alike(model: Model, tmp_path: Path) -> None:
    query(n=150).write_h5ad(tmp_path / "q.h5ad")
    summary = model.assign_file(tmp_path / "q.h5ad", Target(tmp_path / "o.tsv"), options=EXPLAIN)
    again = model.assign(query(n=150), options=EXPLAIN).summary
    assert summary.extra["explanation"] == again.extra["explanation"]


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["pbmc3k", "Zheng_FACS_800"])
def test_known_genes_are_listed(real_data: Callable[[str], Path], name: str) -> None:
    known = {
        "B": {"MS4A1", "CD79A", "CD79B"},
        "NK": {"NKG7", "GNLY", "GZMB"},
        "CD8 T": {"CCL5", "GZMK", "NKG7"},
        "Naive CD4 T": {"IL7R", "MAL"},
        "CD14+ Mono": {"LYZ", "S100A8", "S100A9"},
        "FCGR3A+ Mono": {"FCGR3A", "LST1"},
        "Platelet": {"PPBP", "PF4"},
    }
    rows = load("human-pbmc", threads=1).assign(real_data(name), options=EXPLAIN).summary.extra["explanation"]
    listed = {kind: {row["gene"] for row in rows if row["cell_type"] == kind} for kind in known}
    there = {kind: genes for kind, genes in listed.items() if genes}
    assert len(there) == (7 if name == "pbmc3k" else 4)  # the sorted cells hold no monocytes and no platelets
    assert all(known[kind] <= genes for kind, genes in there.items())
