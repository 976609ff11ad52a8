"""Ontology ids: their form, what the CELLxGENE schema rules out, and whose species they are for."""

from __future__ import annotations

import pytest

from scrcl_infer.ontology import find_problem


@pytest.mark.parametrize("term", ["CL:0000236", "CL:4033002", "WBbt:0005762", "ZFA:0009330", "FBbt:00058005"])
def test_good_ids(term: str) -> None:
    assert find_problem(term) == ""


@pytest.mark.parametrize(
    "term",
    ["", "B cell", "CL_0000236", "CL:236", "CL:00002361", "cl:0000236", " CL:0000236", "CL:0000236\n", "FBbt:0005801",
     "UBERON:0000178", "unknown"],
)  # fmt: skip
def test_other_forms_are_refused(term: str) -> None:
    assert "is no ontology id, expected 'CL:' and seven digits" in find_problem(term)


@pytest.mark.parametrize("term", ["CL:0000255", "CL:0000257", "CL:0000548", "WBbt:0004017", "ZFA:0009000"])
def test_terms_that_say_nothing_are_refused(term: str) -> None:
    assert "is ruled out by the CELLxGENE schema" in find_problem(term)


def test_a_species_ontology_is_for_that_species() -> None:
    assert find_problem("ZFA:0009330", "Danio rerio") == ""
    assert find_problem("CL:0000236", "Danio rerio") == ""
    assert "for Danio rerio and the cells are of Homo sapiens" in find_problem("ZFA:0009330", "Homo sapiens")
