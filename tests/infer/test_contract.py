"""Records survive JSON whatever they hold, and refuse what they do not know. Values come from the annotations."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scrcl_infer import contract
from scrcl_infer.contract import Manifest, Population, SpatialSpec
from scrcl_infer.errors import BundleSchemaError
from scrcl_infer.record import Record
from tests.make_bundle import tiny_bundle

RECORDS = [
    kind
    for kind in vars(contract).values()
    if isinstance(kind, type) and issubclass(kind, Record) and kind is not Record
]
# JSON has no NaN; a whole float must come back as a float.
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
st.register_type_strategy(float, NUMBERS)
records = st.sampled_from(RECORDS).flatmap(st.from_type)
slow = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_all_parts_of_the_manifest_are_tried() -> None:
    parts = {"FileEntry", "GeneTable", "EncoderSpec", "Population", "CellType", "Calibration", "Parity", "Provenance"}
    assert parts | {"Manifest", "SpatialSpec"} <= {kind.__name__ for kind in RECORDS}


@slow
@given(records)
def test_round_trip_through_json(record: Record) -> None:
    data = json.loads(json.dumps(record.to_dict()))
    again = type(record).from_dict(data)
    assert again == record
    assert again.to_dict() == data
    assert set(data) == {item.name for item in dataclasses.fields(record)}


@slow
@given(records, st.text(min_size=1), st.data())
def test_unknown_and_missing_keys_are_refused(record: Record, key: str, data: st.DataObject) -> None:
    fields = dataclasses.fields(record)
    if key not in {item.name for item in fields}:
        with pytest.raises(BundleSchemaError) as caught:
            type(record).from_dict(record.to_dict() | {key: 1})
        assert repr(key) in str(caught.value)
        assert "pip install -U" in str(caught.value)
    no_default = (dataclasses.MISSING, dataclasses.MISSING)
    required = [item.name for item in fields if (item.default, item.default_factory) == no_default]
    gone = data.draw(st.sampled_from(required))
    plain = record.to_dict()
    del plain[gone]
    with pytest.raises(BundleSchemaError, match=rf"missing keys \['{gone}'\]"):
        type(record).from_dict(plain)


@slow
@given(records, st.data())
def test_values_of_another_type_are_refused(record: Record, data: st.DataObject) -> None:
    """No field takes a boolean, and none takes a bare object of another kind."""
    name = data.draw(st.sampled_from([item.name for item in dataclasses.fields(record)]))
    with pytest.raises(BundleSchemaError, match=name):
        type(record).from_dict(record.to_dict() | {name: True})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"n_cells": 1.5}, "Population.n_cells: is 1.5, expected int"),
        ({"n_cells": "7"}, "Population.n_cells: is '7', expected int"),
        ({"name": None}, "Population.name: is None, expected str"),
        ({"purity": "high"}, "Population.purity: is 'high'"),
    ],
)
def test_says_what_was_found_and_expected(change: dict[str, Any], text: str) -> None:
    data = Population(name="P1", cell_type="B cell", n_cells=10, purity=0.5).to_dict()
    with pytest.raises(BundleSchemaError) as caught:
        Population.from_dict(data | change)
    assert text in str(caught.value)


def test_a_string_is_not_a_list_of_letters() -> None:
    data = tiny_bundle().manifest.to_dict()
    data["provenance"]["label_keys"] = "celltype"
    with pytest.raises(BundleSchemaError, match=r"Provenance\.label_keys"):
        Manifest.from_dict(data)


def test_defaults_fill_in() -> None:
    data = tiny_bundle().manifest.to_dict()
    del data["spatial"]
    del data["genes"]["min_overlap"]
    manifest = Manifest.from_dict(data)
    assert manifest.spatial is None
    assert manifest.genes.min_overlap == 0.2


def test_numbers_of_numpy_become_plain() -> None:
    import numpy as np

    population = Population(name="P1", cell_type="B cell", n_cells=int(np.int64(3)), purity=np.float32(0.5))  # type: ignore[arg-type]
    assert json.dumps(population.to_dict()) == json.dumps(
        {"name": "P1", "cell_type": "B cell", "n_cells": 3, "purity": 0.5}
    )


def test_the_contract_id_follows_what_the_encoder_depends_on() -> None:
    manifest = tiny_bundle().manifest
    replace = dataclasses.replace
    same = [
        replace(manifest, name="another"),
        replace(manifest, calibration=replace(manifest.calibration, threshold=0.1)),
        replace(manifest, genes=replace(manifest.genes, min_overlap=0.5)),
    ]
    other = [
        replace(manifest, genes=replace(manifest.genes, names=manifest.genes.names[::-1])),
        replace(manifest, encoder=replace(manifest.encoder, target_sum=1e6)),
        replace(manifest, encoder=replace(manifest.encoder, dim=9)),
        replace(manifest, spatial=SpatialSpec(n_neighbors=5, n_steps=2)),
        replace(manifest, spatial=SpatialSpec(n_neighbors=5, n_steps=3)),
    ]
    assert {each.contract_id for each in same} == {manifest.contract_id}
    assert len({manifest.contract_id, *(each.contract_id for each in other)}) == 1 + len(other)
