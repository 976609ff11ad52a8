"""`scrcl_infer.columns`: the strangeness that reaches the user is the one that cells are rejected by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scrcl_infer.add import apply_assignment
from scrcl_infer.pipeline import Model
from scrcl_infer.result import AssignOptions
from scrcl_infer.strangeness import compute_strangeness, refer
from scrcl_infer.target import Target
from tests.make_bundle import numpy_forward, random_weights, spaces_of, tiny_bundle

N, EMPTY = 60, 7


def query() -> ad.AnnData:
    counts = np.random.default_rng(0).poisson(1.0, (N, 40)).astype(np.float32)
    counts[EMPTY] = 0
    names = pd.DataFrame(index=[f"cell{i}" for i in range(N)]), pd.DataFrame(index=[f"GENE{i}" for i in range(40)])
    return ad.AnnData(counts, obs=names[0], var=names[1])


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(tiny_bundle(), sha256="abc", threads=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    query().write_h5ad(tmp_path / "new.h5ad")
    return tmp_path / "new.h5ad"


def read(path: Path) -> pd.DataFrame:
    if path.suffix == ".h5ad":
        return ad.read_h5ad(path).obs
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, sep=None, engine="python")


def test_strangeness_is_that_of_the_network_in_numpy(model: Model) -> None:
    counts = query().X
    out = numpy_forward(random_weights(), counts, counts.sum(axis=1, keepdims=True))
    assert model.bundle.rejection is not None
    expected = compute_strangeness(spaces_of(out), np.count_nonzero(counts, axis=1), refer(model.bundle.rejection))
    expected[EMPTY] = np.nan
    found = model.assign(query()).strangeness
    assert found is not None
    assert (expected > 0).any()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_cells_of_a_file_that_lacks_genes_are_measured_against_such() -> None:
    bundle = tiny_bundle()
    assert bundle.rejection is not None
    limit = bundle.rejection.limit + np.array([[3], [0]], np.float32)
    rejection = replace(bundle.rejection, limit=limit)
    lacking = query()[:, 10:].copy()
    counts = np.pad(lacking.X, ((0, 0), (10, 0)))
    out = numpy_forward(random_weights(), counts, counts.sum(axis=1, keepdims=True))
    spaces, n_detected, found = spaces_of(out), np.count_nonzero(counts, axis=1), np.arange(40) >= 10
    expected = compute_strangeness(spaces, n_detected, refer(rejection, found))
    assert np.abs(expected - compute_strangeness(spaces, n_detected, refer(rejection))).min() > 0.1
    told = Model(replace(bundle, rejection=rejection), sha256="abc", threads=1).assign(lacking).strangeness
    assert told is not None
    full = np.arange(N) != EMPTY
    np.testing.assert_allclose(told[full], expected[full], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("ending", [".h5ad", ".tsv", ".csv.gz", ".parquet"])
@pytest.mark.parametrize("reject", [True, False])
def test_above_zero_is_unknown_and_a_cell_without_counts_has_none(
    model: Model, path: Path, ending: str, *, reject: bool
) -> None:
    options = AssignOptions(reject=reject, block_size=17)
    out = path.with_name(f"out{ending}")
    model.assign_file(path, Target(out, obs_prefix="my_"), options=options)
    answers = model.assign(path, options=options)
    table, exact = read(out), answers.strangeness
    assert exact is not None
    assert exact.dtype == np.float32
    assert list(table.columns)[-2:] == ["my_margin", "my_strangeness"]
    found = table["my_strangeness"].to_numpy()
    if ending in (".h5ad", ".parquet"):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, exact)
    np.testing.assert_allclose(found, exact, rtol=1e-6, atol=5.1e-7)
    assert np.flatnonzero(np.isnan(found)).tolist() == [EMPTY]
    unknown = (table["my_cell_type"] == "unknown").to_numpy()
    assert unknown[EMPTY]
    rejected = (found > 0) | (answers.confidence < model.manifest.calibration.threshold)
    np.testing.assert_array_equal(np.delete(unknown, EMPTY), np.delete(rejected, EMPTY) & reject)


def test_where_there_is_no_strangeness_the_field_is_empty(model: Model, path: Path) -> None:
    model.assign_file(path, Target(path.with_name("out.csv")))
    fields = [line.split(",") for line in path.with_name("out.csv").read_text().splitlines()]
    assert fields[0][-1] == "scrcl_strangeness"
    assert [i for i, row in enumerate(fields[1:]) if row[-1] == ""] == [EMPTY]


def test_a_bundle_that_rejects_by_the_probability_has_no_strangeness(path: Path) -> None:
    bare, adata = Model(replace(tiny_bundle(), rejection=None), sha256="abc", threads=1), query()
    answers = bare.assign(path)
    bare.assign_file(path, Target(path.with_name("out.h5ad")))
    apply_assignment(adata, answers)
    assert answers.strangeness is None
    for obs in (adata.obs, read(path.with_name("out.h5ad"))):
        assert list(obs.columns)[-1] == "scrcl_margin"


def test_strangeness_of_an_earlier_model_does_not_stay_beside_other_types(model: Model, path: Path) -> None:
    first, second = path.with_name("first.h5ad"), path.with_name("second.h5ad")
    model.assign_file(path, Target(first))
    bare = Model(replace(tiny_bundle(), rejection=None), sha256="abc", threads=1)
    summary = bare.assign_file(first, Target(second))
    assert "scrcl_strangeness" not in read(second)
    assert "obs/scrcl_strangeness" in summary.warnings[0]
