"""Levels of labels: the coarser name of each type, and refusals where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrcl_infer.contract import LabelLevel
from scrcl_infer.errors import InputError
from scrcl_train.naming import compute_types
from scrcl_train.nesting import check_label_keys, find_levels


def column(*runs: tuple[str, int]) -> np.ndarray:
    return np.array([name for name, n in runs for _ in range(n)], dtype=object)


FINEST = column(("CD4", 50), ("CD8", 30), ("B", 20))


def test_levels_are_named_in_the_order_of_the_types() -> None:
    finest = column(("B", 20), ("CD4", 50), ("CD8", 30))
    broad = column(("B", 20), ("T", 80))
    wide = column(("lymphoid", 100))
    levels = find_levels(finest, {"broad": broad, "wide": wide}, {"T": "CL:0000084"})
    assert compute_types(finest) == ("CD4", "CD8", "B")
    assert levels == (
        LabelLevel("broad", ("T", "T", "B"), ("CL:0000084", "CL:0000084", "")),
        LabelLevel("wide", ("lymphoid",) * 3, ("", "", "")),
    )


@given(st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("XYZ"), min_size=1), st.randoms())
def test_any_map_of_types_is_found_again(parents: dict[str, str], random: object) -> None:
    names = [name for name in parents for _ in range(1 + ord(name) % 3)]
    random.shuffle(names)  # type: ignore[attr-defined]
    finest = np.array(names, dtype=object)
    (level,) = find_levels(finest, {"broad": np.array([parents[name] for name in names], dtype=object)})
    assert dict(zip(compute_types(finest), level.names, strict=True)) == parents


def test_a_tenth_of_a_types_cells_may_differ_and_cells_without_label_do_not_count() -> None:
    broad = column(("T", 45), ("B", 5), ("T", 27), ("B", 3), ("B", 10), ("", 10))
    (level,) = find_levels(FINEST, {"broad": broad})
    assert level.names == ("T", "T", "B")
    broad[0] = "B"
    with pytest.raises(InputError, match=r"at least 90%.*'CD4': 44 x 'T', 6 x 'B'\. Give the finest key first"):
        find_levels(FINEST, {"broad": broad})


def test_all_offenders_are_listed() -> None:
    broad = column(("T", 25), ("B", 25), ("", 30), ("B", 20))
    with pytest.raises(InputError, match=r"'CD4': 25 x 'B', 25 x 'T'; no cell of 'CD8' has a label"):
        find_levels(FINEST, {"broad": broad})


def test_coarser_first_is_refused() -> None:
    with pytest.raises(InputError, match=r"obs\['fine'\] is no coarser level"):
        find_levels(column(("T", 80), ("B", 20)), {"fine": FINEST})


def test_levels_that_do_not_nest_in_each_other_are_refused() -> None:
    broad, wide = column(("T", 80), ("B", 20)), column(("regulatory", 50), ("other", 50))
    with pytest.raises(
        InputError, match=r"'broad'\] does not nest in obs\['wide'\]: 'T' is in 'other' and 'regulatory'"
    ):
        find_levels(FINEST, {"broad": broad, "wide": wide})


@pytest.mark.parametrize("keys", [(), ("cell_type",), ("fine", "broad"), ("cell_type", "lineage")])
def test_keys_that_can_be_answered(keys: tuple[str, ...]) -> None:
    check_label_keys(keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("a", "a"), "names 'a', 'a'"),
        (("a", ""), "names 'a', ''"),
        (("fine", "cell_type"), "'cell_type' would be answered in a column whose name is taken"),
        (("fine", "population", "margin"), "'population', 'margin'"),
        (("fine", "x", "x_confidence"), "'x_confidence'"),
    ],
)
def test_keys_whose_columns_would_collide_are_refused(keys: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_label_keys(keys)
