"""Names of populations and types."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrcl_train.naming import compute_types, encode_types, name_populations


def labels_of(*names: str | None) -> np.ndarray:
    return np.array(names, dtype=object)


def test_without_labels_populations_are_the_types() -> None:
    populations, types = name_populations(np.array([0, 0, 0, 1, 1, 2]))
    assert [p.name for p in populations] == ["P1", "P2", "P3"]
    assert [p.cell_type for p in populations] == ["P1", "P2", "P3"]
    assert [p.n_cells for p in populations] == [3, 2, 1]
    assert {p.purity for p in populations} == {None}
    assert [(t.name, t.n_cells) for t in types] == [("P1", 3), ("P2", 2), ("P3", 1)]


def test_names_follow_size_whatever_the_numbers() -> None:
    populations, _ = name_populations(np.array([0, 1, 1, 1, 2, 2]))
    assert [p.name for p in populations] == ["P3", "P1", "P2"]


def test_with_labels_the_majority_names_a_population() -> None:
    labels = labels_of("B", "B", "T", "T", "T", "NK")
    populations, types = name_populations(np.array([0, 0, 0, 1, 1, 1]), labels)
    assert [p.cell_type for p in populations] == ["B", "T"]
    assert [p.purity for p in populations] == pytest.approx([2 / 3, 2 / 3])
    assert [(t.name, t.n_cells) for t in types] == [("T", 3), ("B", 2), ("NK", 1)]


def test_majorities_are_those_of_a_cross_table() -> None:
    rng = np.random.default_rng(0)
    populations = rng.integers(0, 6, 500)
    labels = rng.choice(np.array(["a", "b", "c"], dtype=object), 500, p=[0.5, 0.3, 0.2])
    table = pd.crosstab(populations, labels)
    described, _ = name_populations(populations, labels)
    assert [p.cell_type for p in described] == table.idxmax(axis=1).tolist()
    assert [p.purity for p in described] == pytest.approx((table.max(axis=1) / table.sum(axis=1)).tolist())


def test_cells_without_label_have_no_vote() -> None:
    labels = labels_of("", "", "B", "T", "T", None)
    populations, types = name_populations(np.array([0, 0, 0, 1, 1, 1]), labels)
    assert [(p.cell_type, p.purity, p.n_cells) for p in populations] == [("B", 1.0, 3), ("T", 1.0, 3)]
    assert {t.name for t in types} == {"B", "T"}


def test_a_population_without_any_label_takes_the_commonest_type_at_purity_zero() -> None:
    populations, _ = name_populations(np.array([0, 0, 0, 1, 1]), labels_of("B", "B", "T", "", ""))
    assert (populations[1].cell_type, populations[1].purity) == ("B", 0.0)


def test_labels_that_are_all_missing_are_no_labels() -> None:
    populations, types = name_populations(np.array([0, 0, 1]), labels_of("", None, ""))
    assert [t.name for t in types] == ["P1", "P2"]
    assert populations[0].purity is None


def test_an_equal_vote_goes_to_the_commoner_type() -> None:
    labels = labels_of("Z", "A", "Z", "Z")
    populations, _ = name_populations(np.array([0, 0, 1, 1]), labels)
    assert populations[0].cell_type == "Z"


def test_ontology_ids_reach_their_types() -> None:
    _, types = name_populations(np.array([0, 1]), labels_of("B", "T"), ontology_ids={"B": "CL:0000236"})
    assert {t.name: t.ontology_id for t in types} == {"B": "CL:0000236", "T": None}


def test_a_gap_in_the_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[1\] have no cell"):
        name_populations(np.array([0, 2]))


def test_types_come_by_size_then_by_name() -> None:
    assert compute_types(labels_of("b", "a", "c", "c", "", None)) == ("c", "a", "b")
    assert compute_types(None) == ()


@given(st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=1, max_size=40))
def test_codes_give_the_labels_back(names: list[str]) -> None:
    labels = np.array(names, dtype=object)
    types = compute_types(labels)
    codes = encode_types(labels, types)
    assert ["" if code < 0 else types[code] for code in codes] == names


def test_a_label_that_is_not_a_type_is_minus_one() -> None:
    assert encode_types(labels_of("x", "a", None), ("a",)).tolist() == [-1, 0, -1]
