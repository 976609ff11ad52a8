"""The model card says what the manifest holds."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scrcl_infer.card_sections import MAX_ROWS
from scrcl_infer.contract import Calibration, Manifest, Population, SpatialSpec
from scrcl_train.card import write_card
from tests.student_case import make_small_bundle


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return make_small_bundle(labelled=True).manifest


def table(card: str, heading: str) -> list[list[str]]:
    """Cells of the rows of the table below a heading."""
    lines = card.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0].splitlines()
    rows = [line for line in lines if line.startswith("|")][2:]
    return [[cell.strip() for cell in row.strip("|").split(" |")] for row in rows]


def test_it_tells_data_species_types_and_licence(manifest: Manifest) -> None:
    card = write_card(manifest)
    for text in (
        "# small-world",
        "small.h5ad, 360 cells",
        "Homo sapiens",
        "`cell_type`",
        manifest.contract_id,
        "ab" * 32,
    ):
        assert text in card


def test_its_tables_are_the_manifests(manifest: Manifest) -> None:
    card = write_card(manifest)
    populations = [[p.name, p.cell_type, str(p.n_cells), f"{p.purity:.0%}"] for p in manifest.populations]
    assert table(card, "Populations") == populations
    types = [[t.name, str(t.n_cells), t.ontology_id or ""] for t in manifest.cell_types]
    assert table(card, "Types") == types


def test_its_figures_are_the_manifests(manifest: Manifest) -> None:
    card = write_card(manifest)
    assert "Of 52 training cells held out of a first fit, 95.0% keep their answer" in card
    assert "Probabilities are off by 2.0%" in card
    assert f"embedding within {manifest.parity.max_abs_diff:.1e}, 100%" in card.replace("\n", " ")


def test_it_says_how_many_held_out_cells_were_right(manifest: Manifest) -> None:
    told = replace(manifest.calibration, accuracy=0.877)
    card = write_card(replace(manifest, calibration=told))
    assert "first fit, 87.7% get the type of their label, and 95.0% keep" in card
    unlabelled = write_card(replace(make_small_bundle(labelled=False).manifest, calibration=told))
    assert "87.7% get the type of the population found for them, and" in unlabelled


def test_without_labels_there_is_no_table_of_types() -> None:
    card = write_card(make_small_bundle(labelled=False).manifest)
    assert "## Types" not in card
    assert "no labels" in card
    assert "Probabilities are off" not in card


def test_it_says_how_well_hidden_classes_were_told(manifest: Manifest) -> None:
    assert "AUROC" not in write_card(manifest)
    hidden = replace(manifest.calibration, hidden_auroc=0.9123)
    assert "Types were hidden" in write_card(replace(manifest, calibration=hidden))
    unlabelled = make_small_bundle(labelled=False).manifest
    card = write_card(replace(unlabelled, calibration=hidden)).replace("\n", " ")
    assert "Populations were hidden from further fits in turn" in card
    assert "other populations with an AUROC of 0.912" in card


def test_it_says_when_nothing_could_be_held_out(manifest: Manifest) -> None:
    card = write_card(replace(manifest, calibration=Calibration(1.0, 0.0, 1.0)))
    assert "Nothing could be held out" in card


def test_a_spatial_model_is_not_said_to_answer_each_cell_on_its_own(manifest: Manifest) -> None:
    assert "on its own" in write_card(manifest)
    card = write_card(replace(manifest, spatial=SpatialSpec(n_neighbors=6, n_steps=5))).replace("\n", " ")
    assert "on its own" not in card
    assert "5 steps over the 6 nearest" in card
    assert "`obsm['spatial']`" in card


def test_notes_stand_before_the_limits(manifest: Manifest) -> None:
    card = write_card(manifest, notes="Accuracy 0.93 on another donor.\n")
    assert card.index("Accuracy 0.93 on another donor.") < card.index("## Where it must not be used")


def test_a_name_cannot_break_the_table(manifest: Manifest) -> None:
    odd = replace(manifest, populations=(Population("P1", "a | b\nc", 7, None),))
    assert "| P1 | a \\| b c | 7 |  |" in write_card(odd)


def test_a_long_table_is_cut(manifest: Manifest) -> None:
    many = tuple(Population(f"P{i}", f"P{i}", 5) for i in range(MAX_ROWS + 12))
    card = write_card(replace(manifest, populations=many))
    assert f"P{MAX_ROWS - 1} " in card
    assert f"P{MAX_ROWS} " not in card
    assert "| and 12 more | | | |" in card
