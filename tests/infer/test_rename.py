"""Renaming: other names and checksums, the same encoder and the same probabilities."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import scrcl_infer
from scrcl_infer.bundle import bundle_sha256, read_bundle, write_bundle
from scrcl_infer.contract import FILES, SCHEMA_VERSION, LabelLevel
from scrcl_infer.errors import InputError, OutputError
from scrcl_infer.rename import Renamed, read_name_table, rename_bundle_folder
from scrcl_infer.result import Assignment, AssignOptions
from scrcl_infer.tempering import calibrate_types
from scrcl_infer.verify import verify_bundle
from tests.make_bundle import tiny_bundle

V1 = Path(__file__).parents[1] / "data" / "bundles" / "v1"


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def rename(folder: Path, text: str, **options: bool) -> Renamed:
    """Rename `folder/old` by a table into `folder/new`."""
    table = folder / "names.csv"
    table.write_text(text)
    return rename_bundle_folder(folder / "old", table, folder / "new", **options)


def assign(folder: Path) -> Assignment:
    import anndata as ad
    import pandas as pd

    counts = np.random.default_rng(0).poisson(1.0, (80, 40)).astype(np.float32)
    var = pd.DataFrame(index=[f"GENE{i}" for i in range(40)])
    return scrcl_infer.load(folder, threads=1).assign(ad.AnnData(counts, var=var), options=AssignOptions(reject=False))


@pytest.fixture
def blind(tmp_path: Path) -> Path:
    """A folder with the bundle `old`, whose types follow from five populations."""
    write_bundle(tiny_bundle(n_types=0), tmp_path / "old")
    return tmp_path


@pytest.fixture
def headed(tmp_path: Path) -> Path:
    """A folder with the bundle `old`, which has a type head, ids and a level."""
    bundle = tiny_bundle()
    first, *others = bundle.manifest.cell_types
    types = (replace(first, ontology_id="CL:0000236"), *others)
    levels = (LabelLevel("broad", ("x", "y", "x", "y"), ("", "", "", "")),)
    write_bundle(replace(bundle, manifest=replace(bundle.manifest, cell_types=types, levels=levels)), tmp_path / "old")
    return tmp_path


def test_populations_get_names_and_those_of_one_name_sum(blind: Path) -> None:
    before, untouched = assign(blind / "old"), digest(blind / "old")
    rename(blind, "population,name,ontology_id\nP1,B cell,CL:0000236\nP4,B cell,\nP3,T cell,\n")
    assert digest(blind / "old") == untouched
    assert verify_bundle(blind / "new").passed
    manifest = read_bundle(blind / "new").manifest
    assert [p.name for p in manifest.populations] == ["P1", "P2", "P3", "P4", "P5"]
    assert [p.cell_type for p in manifest.populations] == ["B cell", "type B", "T cell", "B cell", "type A"]
    assert [(t.name, t.n_cells, t.ontology_id) for t in manifest.cell_types] == [
        ("B cell", 100 + 97, "CL:0000236"),
        ("type B", 99, None),
        ("T cell", 98, None),
        ("type A", 96, None),
    ]
    after = assign(blind / "new")
    np.testing.assert_array_equal(after.population, before.population)
    np.testing.assert_array_equal(after.embedding, before.embedding)
    named = dict(zip(("P1", "P2", "P3", "P4", "P5"), (p.cell_type for p in manifest.populations), strict=True))
    sure = after.margin > 0.5  # there the best type is that of the best population
    assert sure.sum() > 10
    assert after.cell_type[sure].tolist() == [named[name] for name in after.population[sure]]


def test_the_encoder_stays_and_the_checksums_follow(blind: Path) -> None:
    old_sha = bundle_sha256(blind / "old")
    renamed = rename(blind, "population\tname\nP1\tB cell\n")
    old, new = digest(blind / "old"), digest(blind / "new")
    changed = {name for name in old if old[name] != new[name]}
    assert changed == {FILES.manifest, FILES.card}
    assert bundle_sha256(blind / "new") != old_sha
    bundle = read_bundle(blind / "new")
    assert bundle.manifest.provenance.renamed_from == old_sha
    assert bundle.manifest.name == "new"
    assert renamed.changes == (("P1", "B cell"),)
    assert renamed.dropped_ids == ()


def test_types_of_a_head_are_renamed_in_place_and_answers_are_the_same_but_for_names(headed: Path) -> None:
    before = assign(headed / "old")
    renamed = rename(headed, "type,name\ntype A,B cell\ntype C,type A\n")
    after = assign(headed / "new")
    names = {"type A": "B cell", "type C": "type A"}
    assert after.cell_type.tolist() == [names.get(name, name) for name in before.cell_type]
    assert after.confidence.tobytes() == before.confidence.tobytes()
    assert after.levels["broad"].tolist() == before.levels["broad"].tolist()
    manifest = read_bundle(headed / "new").manifest
    # The id stays with the name that it explains, and is not kept for another.
    assert [(t.name, t.ontology_id) for t in manifest.cell_types] == [
        ("B cell", None), ("type B", None), ("type A", "CL:0000236"), ("type D", None)
    ]  # fmt: skip
    assert [p.cell_type for p in manifest.populations] == ["B cell", "type B", "type A", "type D", "B cell"]
    assert renamed.dropped_ids == ("B cell",)


def test_ids_alone_can_be_given(headed: Path) -> None:
    renamed = rename(headed, "type,name,ontology_id\ntype B,type B,CL:0000084\n")
    manifest = read_bundle(headed / "new").manifest
    assert [t.ontology_id for t in manifest.cell_types] == ["CL:0000236", "CL:0000084", None, None]
    assert renamed.dropped_ids == ()


def test_the_card_lists_the_new_types_and_says_what_was_done(blind: Path) -> None:
    rename(blind, "population,name\nP1,B|cell\n")
    card = read_bundle(blind / "new").card
    assert card.startswith("# new\n")
    assert "| P1 | B\\|cell | 100 |" in card
    assert "- population P1: B|cell" in card
    assert bundle_sha256(blind / "old") in card
    types = card.split("## Types\n")[1].split("\n## ")[0]
    assert "B\\|cell" in types
    # Once more: the tables are replaced, not repeated.
    (blind / "again.csv").write_text("population,name\nP1,T cell\n")
    rename_bundle_folder(blind / "new", blind / "again.csv", blind / "third")
    card = read_bundle(blind / "third").card
    assert card.count("## Populations") == card.count("## Types") == 1
    assert "| P1 | T cell | 100 |" in card
    assert "| B\\|cell |" not in card


def test_types_put_together_are_calibrated_anew_and_the_card_says_so(blind: Path) -> None:
    old = read_bundle(blind / "old")
    assert old.held_out is not None
    assert "temperature" not in old.card
    renamed = rename(blind, "population,name\nP1,B cell\nP2,B cell\nP5,B cell\n")
    new = read_bundle(blind / "new")
    together = np.array([0, 0, 1, 2, 0])
    before = np.array([0, 1, 2, 3, 0])
    wanted = calibrate_types(old.manifest.calibration, old.held_out, before, together)
    assert new.manifest.calibration == wanted
    assert wanted.temperature != old.manifest.calibration.temperature
    assert renamed.temperatures == (old.manifest.calibration.temperature, wanted.temperature)
    assert "- Types: 4, from" not in new.card
    assert f"Of {len(old.held_out.population)} training cells" in new.card
    np.testing.assert_array_equal(new.held_out.log_posterior, old.held_out.log_posterior)
    # Taken apart again, the first calibration is found again but for the cells that it rests on.
    (blind / "apart.csv").write_text("population,name\nP2,type B\nP1,type A\nP5,type A\n")
    rename_bundle_folder(blind / "new", blind / "apart.csv", blind / "third")
    third = read_bundle(blind / "third").manifest.calibration
    assert third == calibrate_types(old.manifest.calibration, old.held_out, together, before)


def test_a_name_alone_changes_no_calibration(blind: Path) -> None:
    old = read_bundle(blind / "old").manifest.calibration
    assert rename(blind, "population,name\nP2,B cell\n").temperatures == (old.temperature, old.temperature)
    assert read_bundle(blind / "new").manifest.calibration == old


def test_a_bundle_of_an_older_schema_becomes_one_of_the_newest(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("type,name\ntype A,B cell\n")
    rename_bundle_folder(V1, tmp_path / "n.csv", tmp_path / "new")
    assert read_bundle(tmp_path / "new").manifest.schema_version == SCHEMA_VERSION
    assert verify_bundle(tmp_path / "new").passed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\nB\n", "neither of the columns 'population' and 'type'"),
        ("population,type,name\nP1,type A,B\n", "both of the columns"),
        ("population,name\nP1,B\nP1,T\n", "'P1' stands twice"),
        ("population,name\nP1,unknown\n", "'P1' to 'unknown'"),
        ("population,name\n,B\n", "'' to 'B'"),
        ("population,name,ontology_id\nP1,B,CL:1\n", "'CL:1' is no ontology id"),
        (
            "population,name,ontology_id\nP1,B,CL:0000236\nP2,B,CL:0000084\n",
            "'B' has the ids CL:0000236 and CL:0000084",
        ),
        ("population,name,ontology_id\nP1,B,ZFA:0009330\n", "for Danio rerio and the cells are of Homo sapiens"),
        ("population,name\nP9,B\n", r"has no population 'P9'. It has: P1, P2"),
        ("type,name\nB,C\n", r"has no type 'B'. It has: type A"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(blind: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        rename(blind, text)
    assert not (blind / "new").exists()


def test_types_of_a_head_cannot_be_merged_nor_named_by_population(headed: Path) -> None:
    with pytest.raises(InputError, match=r"would be called 'B'.*cannot be merged"):
        rename(headed, "type,name\ntype A,B\ntype B,B\n")
    with pytest.raises(InputError, match=r"would be called 'type C'"):
        rename(headed, "type,name\ntype A,type C\n")
    with pytest.raises(InputError, match="were learned from labels"):
        rename(headed, "population,name\nP1,B\n")


def test_nothing_is_replaced_unasked_and_the_old_bundle_never(blind: Path) -> None:
    text = "population,name\nP1,B cell\n"
    rename(blind, text)
    with pytest.raises(OutputError, match="--force"):
        rename(blind, text)
    rename(blind, text, force=True)
    with pytest.raises(OutputError, match="never changed"):
        rename_bundle_folder(blind / "old", blind / "names.csv", blind / "x" / ".." / "old", force=True)


def test_the_table_keeps_the_order_of_its_rows(tmp_path: Path) -> None:
    (tmp_path / "n.csv").write_text("Type,Name\nb,B\na,A\n")
    table = read_name_table(tmp_path / "n.csv")
    assert (table.kind, list(table.names.items()), table.ontology_ids) == ("type", [("b", "B"), ("a", "A")], {})
