"""Labels, ids and markers on their way from the training file into the bundle and out again with the answers."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import scrcl_infer
from scrcl_infer.contract import LabelLevel
from scrcl_infer.errors import InputError
from scrcl_infer.rename import rename_bundle_folder
from scrcl_infer.result import AssignOptions
from scrcl_infer.target import Target
from scrcl_infer.verify import verify_bundle
from scrcl_train.data import read_training_data
from scrcl_train.names import check_names, check_types, find_ontology_ids, read_names, read_ontology_ids
from scrcl_train.options import TrainOptions
from scrcl_train.pipeline import TrainResult, train
from scrcl_train.presets import get_preset

OPTIONS = TrainOptions(config=get_preset("default", epochs=3), n_populations=6)
BROAD = {"T naive": "T", "T memory": "T", "B": "B", "NK": "NK", "Monocyte": "Monocyte", "Platelet": "Platelet"}
IDS = {"T naive": "CL:0000898", "T memory": "CL:0000813", "B": "CL:0000236", "NK": "CL:0000623"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("names")


@pytest.fixture(scope="module")
def cells(folder: Path, simulated: AnnData) -> Path:
    """The simulated cells with two coarser levels; genes named by symbols in mixed case, with versioned ids beside."""
    adata = simulated.copy()
    fine = adata.obs["cell_type"].astype(str)
    adata.obs["broad"] = fine.map(BROAD).astype("category")
    adata.obs["lineage"] = pd.Categorical(
        ["lymphoid" if b in ("T", "B", "NK") else "myeloid" for b in adata.obs["broad"]]
    )
    adata.var["gene_ids"] = [f"ENSG{i:011d}.{i % 7}" for i in range(adata.n_vars)]
    adata.write_h5ad(folder / "cells.h5ad")
    return folder / "cells.h5ad"


@pytest.fixture(scope="module")
def levelled(folder: Path, cells: Path) -> TrainResult:
    table = folder / "ids.csv"
    rows = [f"{name},{term}" for name, term in {**IDS, "T": "CL:0000084", "Nobody": "CL:0000540"}.items()]
    table.write_text("\n".join(["name,id", *rows]) + "\n")
    keys = ("cell_type", "broad", "lineage")
    options = replace(OPTIONS, label_keys=keys, ontology_ids=table, write_h5ad=folder / "found.h5ad")
    return train(cells, folder / "levelled", options)


@pytest.fixture(scope="module")
def marked(folder: Path, cells: Path, simulated: AnnData) -> TrainResult:
    """Named by the genes with the highest fold change in the simulated counts."""
    counts, fine = simulated.X.toarray(), simulated.obs["cell_type"].astype(str).to_numpy()
    share = {name: counts[fine == name].sum(axis=0) / counts[fine == name].sum() + 1e-4 for name in BROAD}
    lines = ["type,gene"]
    for name, own in share.items():
        fold = own / np.max([other for key, other in share.items() if key != name], axis=0)
        lines += [f"{name},{gene.lower()}" for gene in simulated.var_names[np.argsort(-fold)[:10]]]
    (folder / "markers.csv").write_text("\n".join(lines) + "\n")
    return train(cells, folder / "marked", replace(OPTIONS, markers=folder / "markers.csv"))


def test_the_bundle_has_levels_ids_and_their_origin(levelled: TrainResult) -> None:
    manifest = levelled.bundle.manifest
    assert manifest.provenance.label_keys == ("cell_type", "broad", "lineage")
    assert {t.name: t.ontology_id for t in manifest.cell_types} == {name: IDS.get(name) for name in BROAD}
    names = tuple(t.name for t in manifest.cell_types)
    broad = tuple(BROAD[name] for name in names)
    ids = tuple({"T": "CL:0000084", "B": "CL:0000236", "NK": "CL:0000623"}.get(name, "") for name in broad)
    lineage = tuple("lymphoid" if b in ("T", "B", "NK") else "myeloid" for b in broad)
    assert manifest.levels == (LabelLevel("broad", broad, ids), LabelLevel("lineage", lineage, ("",) * 6))
    assert "| T naive |" in levelled.bundle.card
    assert "| type | training cells | ontology id | broad | lineage |" in levelled.bundle.card
    assert "labels of `cell_type`, with the coarser levels `broad, lineage`" in levelled.bundle.card
    found = ad.read_h5ad(levelled.folder.parent / "found.h5ad").obs
    assert [BROAD[name] for name in found["scrcl_cell_type"]] == found["scrcl_broad"].tolist()


def test_a_query_gets_all_levels_consistent_with_each_other(levelled: TrainResult, cells: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.h5ad"
    scrcl_infer.load(levelled.folder).assign_file(cells, Target(out, ontology=True))
    obs = ad.read_h5ad(out).obs
    known = obs["scrcl_cell_type"] != "unknown"
    assert known.sum() > 300
    assert (obs.loc[~known, ["scrcl_broad", "scrcl_lineage", "cell_type_ontology_term_id"]] == "unknown").all(axis=None)
    fine = obs.loc[known, "scrcl_cell_type"].astype(str)
    assert obs.loc[known, "scrcl_broad"].tolist() == fine.map(BROAD).tolist()
    assert obs.loc[known, "cell_type_ontology_term_id"].tolist() == [IDS.get(name, "unknown") for name in fine]
    assert (obs["scrcl_confidence"] <= obs["scrcl_broad_confidence"]).all()
    assert (obs["scrcl_broad_confidence"] <= obs["scrcl_lineage_confidence"]).all()
    assert (obs.loc[known, "scrcl_broad"].astype(str) == obs.loc[known, "broad"].astype(str)).mean() > 0.9


@pytest.mark.parametrize("names", ["symbols", "ids"])
def test_a_query_may_have_either_of_symbols_and_ids(levelled: TrainResult, cells: Path, names: str) -> None:
    """The training file had both, so the bundle has both; the spelling of the query is its own."""
    query = ad.read_h5ad(cells)
    expected = scrcl_infer.load(levelled.folder).assign(query)
    ids = query.var.pop("gene_ids")
    lower = [name.lower() if i % 2 else name.upper() for i, name in enumerate(query.var_names)]
    query.var_names = lower if names == "symbols" else [f"{term.partition('.')[0]}.99" for term in ids]
    answers = scrcl_infer.load(levelled.folder).assign(query)
    assert answers.summary.genes.weighted_overlap == pytest.approx(1)
    assert answers.cell_type.tolist() == expected.cell_type.tolist()


def test_ids_that_name_nothing_and_types_without_id_are_told(
    levelled: TrainResult, cells: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = read_training_data(cells)
    options = replace(OPTIONS, label_keys=("cell_type",), ontology_ids=folder / "ids.csv")
    with caplog.at_level(logging.WARNING):
        read_names(cells, data, options)
    assert "no type or level is called T, Nobody." in caplog.text
    assert "No ontology id is known for Monocyte, Platelet" in caplog.text


def test_marker_genes_name_what_was_found(marked: TrainResult, simulated: AnnData) -> None:
    manifest, labels = marked.bundle.manifest, marked.found.populations.labels
    fine = simulated.obs["cell_type"].astype(str).to_numpy()
    named = np.array([p.cell_type for p in manifest.populations], dtype=object)[labels]
    majority = np.array([pd.Series(fine[labels == k]).mode()[0] for k in range(6)], dtype=object)[labels]
    # As right as populations can be: each that has a name has that of most of its cells.
    has_name = np.isin(named, list(BROAD))
    assert has_name.mean() > 0.9
    assert (named[has_name] == majority[has_name]).all()
    assert manifest.provenance.marker_table == "markers.csv"
    assert sum(t.n_cells for t in manifest.cell_types) == 400
    assert manifest.encoder.n_types == 0
    assert "the marker genes of `markers.csv`" in marked.bundle.card
    assert "## Types" in marked.bundle.card


def test_marker_scores_are_kept_and_told(marked: TrainResult) -> None:
    table = pd.read_csv(marked.run_dir / "marker_scores.csv")
    assert len(table) == 6 * 6
    chosen = table[table["chosen"] == 1].set_index("population")["type"].to_dict()
    named = {p.name: p.cell_type for p in marked.bundle.manifest.populations if p.cell_type != p.name}
    assert chosen == named
    best = table.loc[table.groupby("population")["score"].idxmax()].set_index("population")
    assert len(marked.naming) == 6
    for line, name in zip(marked.naming, (f"P{i}" for i in range(1, 7)), strict=True):
        assert line.startswith(f"{name} (")
        assert f"(scores {best.loc[name, 'type']} {best.loc[name, 'score']:.2f}, " in line


def test_what_markers_left_unnamed_can_be_named_later(marked: TrainResult, cells: Path, tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("population,name,ontology_id\nP1,Mine,CL:0000084\nP2,Mine,\n")
    rename_bundle_folder(marked.folder, tmp_path / "n.csv", tmp_path / "new")
    assert verify_bundle(tmp_path / "new").passed
    told = AssignOptions(reject=False)
    before, after = (scrcl_infer.load(path).assign(cells, options=told) for path in (marked.folder, tmp_path / "new"))
    assert after.population.tolist() == before.population.tolist()
    mine = after.cell_type == "Mine"
    assert mine[after.margin > 0.5].tolist() == np.isin(after.population, ["P1", "P2"])[after.margin > 0.5].tolist()
    assert after.ontology_id is not None
    assert set(after.ontology_id[mine]) == {"CL:0000084"}


def test_ids_come_from_the_data_where_each_label_has_one(
    cells: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    adata = ad.read_h5ad(cells)
    terms = adata.obs["cell_type"].astype(str).map(lambda name: IDS.get(name, "unknown")).to_numpy(dtype=object)
    fine = adata.obs["cell_type"].astype(str).to_numpy()
    terms[np.flatnonzero(fine == "B")[0]] = "CL:0000787"  # two ids: none is taken
    terms[np.flatnonzero(fine == "NK")[0]] = "unknown"
    adata.obs["cell_type_ontology_term_id"] = pd.Categorical(terms)
    adata.write_h5ad(tmp_path / "own.h5ad")
    data = read_training_data(tmp_path / "own.h5ad")
    with caplog.at_level(logging.INFO):
        names = read_names(tmp_path / "own.h5ad", data, replace(OPTIONS, label_keys=("cell_type",)))
    assert names.ontology_ids == {name: term for name, term in IDS.items() if name != "B"}
    assert "Ontology ids of 3 types are taken from obs['cell_type_ontology_term_id']" in caplog.text
    assert find_ontology_ids(cells, read_training_data(cells), fine) == {}


def test_tables_of_ids_are_checked(tmp_path: Path) -> None:
    table = tmp_path / "ids.csv"
    table.write_text("name,id\nB,CL:236\nT,CL:0000255\nNK,ZFA:0009330\nX,CL:0000001\nX,CL:0000002\n")
    with pytest.raises(InputError) as caught:
        read_ontology_ids(table, species="Homo sapiens")
    for text in (
        "'B': 'CL:236' is no ontology id",
        "'T': CL:0000255",
        "'NK': ZFA:0009330",
        "'X': the ids CL:0000001 and",
    ):
        assert text in str(caught.value)
    table.write_text("type,id\nB,CL:0000236\n")
    with pytest.raises(InputError, match="expected a header such as 'name,id'"):
        read_ontology_ids(table)


def test_options_that_contradict_are_refused_before_any_work(cells: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("type,gene\nB,MS4A1\n")
    both = replace(OPTIONS, markers=tmp_path / "m.csv", label_keys=("cell_type",))
    with pytest.raises(InputError, match="both name the populations"):
        train(cells, tmp_path / "new", both)
    (tmp_path / "ids.csv").write_text("name,id\nB,CL:0000236\n")
    with pytest.raises(InputError, match="there are none without --labels or --markers"):
        check_names(replace(OPTIONS, ontology_ids=tmp_path / "ids.csv"))
    with pytest.raises(InputError, match=r"no file .*nowhere\.csv"):
        train(cells, tmp_path / "new", replace(OPTIONS, markers=tmp_path / "nowhere.csv"))
    with pytest.raises(InputError, match="No type of the marker table has enough genes"):
        train(cells, tmp_path / "new", replace(OPTIONS, markers=tmp_path / "m.csv"))
    assert not (tmp_path / "new.run").exists()


def test_labels_that_are_hardly_types_are_refused_and_missing_ones_are_told(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match="50 different labels for 60 cells"):
        check_types(np.array([f"cell {i % 50}" for i in range(60)], dtype=object), "barcode")
    check_types(np.array(["B", "B", "T", "T"], dtype=object), "type")
    assert not caplog.text
    check_types(np.array(["B", "B", "T", "T", ""], dtype=object), "type")
    assert "no label for 1 of 5 cells" in caplog.text
