"""Coarser levels and ontology ids in the answers: right, nested, and the same in a file, a table and in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scrcl_infer.add import apply_assignment
from scrcl_infer.assign import apply_temperature
from scrcl_infer.bundle import read_bundle, write_bundle
from scrcl_infer.columns import find_taken
from scrcl_infer.contract import Bundle, LabelLevel
from scrcl_infer.errors import BundleIntegrityError, InputError, OutputError
from scrcl_infer.levels import compute_level_confidence
from scrcl_infer.pipeline import Model
from scrcl_infer.result import AssignOptions
from scrcl_infer.target import Target
from tests.make_bundle import tiny_bundle

# Types A and C are "x", B and D "y"; all are "cell" but D.
BROAD = LabelLevel("broad", ("x", "y", "x", "y"), ("CL:0000084", "", "CL:0000084", ""))
WIDE = LabelLevel("wide", ("cell", "other", "cell", "other"), ("", "", "", ""))
IDS = ("CL:0000236", "CL:0000084", None, "CL:0000623")
OBS = ["scrcl_strangeness", "scrcl_broad", "scrcl_broad_confidence", "scrcl_wide", "scrcl_wide_confidence"]


def levelled(*levels: LabelLevel) -> Bundle:
    bundle = tiny_bundle()
    types = tuple(replace(t, ontology_id=i) for t, i in zip(bundle.manifest.cell_types, IDS, strict=True))
    return replace(bundle, manifest=replace(bundle.manifest, levels=levels, cell_types=types))


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(levelled(BROAD, WIDE), sha256="abc", threads=1)


@pytest.fixture
def adata() -> ad.AnnData:
    counts = np.random.default_rng(0).poisson(1.0, (300, 40)).astype(np.float32)
    counts[7] = 0
    obs, var = (pd.DataFrame(index=[f"{what}{i}" for i in range(n)]) for what, n in (("cell", 300), ("GENE", 40)))
    return ad.AnnData(counts, obs=obs, var=var)


def test_confidence_is_the_sum_over_the_types_of_the_name(model: Model, adata: ad.AnnData) -> None:
    answers = model.assign(adata)
    encoder = model._encoder(1)
    out = encoder.run(adata.X, adata.X.sum(axis=1, keepdims=True))
    posterior = apply_temperature(out.log_type_posterior, model.manifest.calibration.temperature)
    best = posterior.argmax(axis=1)
    for level in (BROAD, WIDE):
        same = np.array(level.names)[None, :] == np.array(level.names)[best][:, None]
        expected = (posterior * same).sum(axis=1)
        expected[7] = 0
        np.testing.assert_allclose(answers.level_confidence[level.key], expected, rtol=1e-6)
        assert (answers.level_confidence[level.key] >= answers.confidence).all()


def test_the_coarser_name_is_the_parent_of_the_type_and_unknown_where_it_is(model: Model, adata: ad.AnnData) -> None:
    answers = model.assign(adata)
    assert 0 < (answers.cell_type == "unknown").sum() < 300
    for level in (BROAD, WIDE):
        parents = {t.name: name for t, name in zip(model.manifest.cell_types, level.names, strict=True)}
        expected = [parents.get(name, "unknown") for name in answers.cell_type]
        assert answers.levels[level.key].tolist() == expected
    assert answers.ontology_id is not None
    ids = {t.name: i or "unknown" for t, i in zip(model.manifest.cell_types, IDS, strict=True)}
    assert answers.ontology_id.tolist() == [ids.get(name, "unknown") for name in answers.cell_type]
    per_level = answers.summary.extra["levels"]["broad"]
    assert per_level == pd.Series(answers.levels["broad"]).value_counts().to_dict()


def test_answers_do_not_depend_on_the_blocks(model: Model, adata: ad.AnnData) -> None:
    whole = model.assign(adata)
    for size in (1, 7, 128):
        parts = model.assign(adata, options=AssignOptions(block_size=size))
        for key in ("broad", "wide"):
            assert parts.level_confidence[key].tobytes() == whole.level_confidence[key].tobytes()


def test_sums_have_a_fixed_order() -> None:
    rng = np.random.default_rng(0)
    posterior = rng.dirichlet(np.ones(4), size=50)
    types = posterior.argmax(axis=1).astype(np.int32)
    whole = compute_level_confidence(posterior, types, [BROAD])
    alone = [compute_level_confidence(posterior[i : i + 1], types[i : i + 1], [BROAD])[0] for i in range(50)]
    assert np.array(alone).tobytes() == whole.tobytes()


@pytest.mark.parametrize("ending", ["h5ad", "tsv", "csv.gz", "parquet"])
def test_files_tables_and_memory_agree(model: Model, adata: ad.AnnData, tmp_path: Path, ending: str) -> None:
    adata.write_h5ad(tmp_path / "new.h5ad")
    out = tmp_path / f"out.{ending}"
    model.assign_file(tmp_path / "new.h5ad", Target(out, ontology=True), options=AssignOptions(block_size=50))
    apply_assignment(adata, model.assign(adata), ontology=True)
    assert list(adata.obs.columns[4:]) == [*OBS, "cell_type_ontology_term_id"]
    if ending == "h5ad":
        written = ad.read_h5ad(out)
        pd.testing.assert_frame_equal(written.obs, adata.obs)
        assert list(written.uns["scrcl"]["obs_columns"]) == list(adata.obs.columns)
        column = written.obs["cell_type_ontology_term_id"]
        assert isinstance(column.dtype, pd.CategoricalDtype)
        assert set(column.cat.categories) <= {"CL:0000084", "CL:0000236", "CL:0000623", "unknown"}
        return
    table = pd.read_parquet(out) if ending == "parquet" else pd.read_csv(out, sep=None, engine="python")
    assert list(table.columns) == ["cell", *adata.obs.columns]
    for key in adata.obs:
        if key.endswith(("confidence", "margin", "strangeness")):
            np.testing.assert_allclose(table[key], adata.obs[key], atol=1e-6)
        else:
            assert table[key].tolist() == adata.obs[key].astype(str).tolist()


def test_without_the_option_there_are_no_ids(model: Model, adata: ad.AnnData, tmp_path: Path) -> None:
    adata.write_h5ad(tmp_path / "new.h5ad")
    model.assign_file(tmp_path / "new.h5ad", Target(tmp_path / "out.h5ad"))
    assert "cell_type_ontology_term_id" not in ad.read_h5ad(tmp_path / "out.h5ad").obs


def test_a_bundle_without_ids_cannot_write_them(adata: ad.AnnData, tmp_path: Path) -> None:
    bare = Model(tiny_bundle(), sha256="abc", threads=1)
    adata.write_h5ad(tmp_path / "new.h5ad")
    with pytest.raises(OutputError, match=r"no ontology ids.*scrcl-models name.*--ontology-ids"):
        bare.assign_file(tmp_path / "new.h5ad", Target(tmp_path / "out.h5ad", ontology=True))
    with pytest.raises(InputError, match="no ontology ids"):
        apply_assignment(adata, bare.assign(adata), ontology=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.h5ad"]


def test_somebody_elses_ids_are_replaced_with_force_only(model: Model, adata: ad.AnnData, tmp_path: Path) -> None:
    adata.obs["cell_type_ontology_term_id"] = pd.Categorical(["CL:0000540"] * 300)
    adata.write_h5ad(tmp_path / "new.h5ad")
    with pytest.raises(OutputError, match=r"cell_type_ontology_term_id.*leave out --ontology.*--force"):
        model.assign_file(tmp_path / "new.h5ad", Target(tmp_path / "out.h5ad", ontology=True))
    model.assign_file(tmp_path / "new.h5ad", Target(tmp_path / "out.h5ad", ontology=True, force=True))
    assert "CL:0000540" not in set(ad.read_h5ad(tmp_path / "out.h5ad").obs["cell_type_ontology_term_id"])


def test_levels_of_an_earlier_model_do_not_stay_beside_other_types(
    model: Model, adata: ad.AnnData, tmp_path: Path
) -> None:
    adata.write_h5ad(tmp_path / "new.h5ad")
    model.assign_file(tmp_path / "new.h5ad", Target(tmp_path / "first.h5ad", ontology=True))
    bare = Model(tiny_bundle(), sha256="abc", threads=1)
    summary = bare.assign_file(tmp_path / "first.h5ad", Target(tmp_path / "second.h5ad"))
    second = ad.read_h5ad(tmp_path / "second.h5ad")
    assert list(second.obs.columns) == [
        f"scrcl_{name}" for name in ("cell_type", "population", "confidence", "margin", "strangeness")
    ]
    assert "obs/scrcl_broad" in summary.warnings[0]


def test_a_bundle_with_levels_is_written_and_read(tmp_path: Path) -> None:
    bundle = levelled(BROAD, WIDE)
    assert read_bundle(write_bundle(bundle, tmp_path / "model")).manifest.levels == (BROAD, WIDE)


@pytest.mark.parametrize(
    ("levels", "problem"),
    [
        ((BROAD, BROAD), "keys that differ"),
        ((replace(BROAD, names=("x", "y")),), "2 names and 4 ontology ids, expected 4"),
        ((replace(BROAD, names=("x", "y", "x", "unknown")),), "names a type '' or 'unknown'"),
        ((replace(BROAD, ontology_ids=("CL:1", "", "CL:1", "")),), "'CL:1' is no ontology id"),
        ((replace(BROAD, ontology_ids=("CL:0000084", "", "", "")),), "one name several ontology ids"),
        ((BROAD, replace(WIDE, names=("cell", "cell", "other", "other"))), "'broad' does not nest in 'wide'"),
    ],
)
def test_levels_that_contradict_are_no_bundle(levels: tuple[LabelLevel, ...], problem: str, tmp_path: Path) -> None:
    with pytest.raises(BundleIntegrityError, match=problem):
        write_bundle(levelled(*levels), tmp_path / "model")


def test_levels_need_a_type_head_and_ids_their_form(tmp_path: Path) -> None:
    blind = tiny_bundle(n_types=0)
    with pytest.raises(BundleIntegrityError, match="without a type head"):
        write_bundle(replace(blind, manifest=replace(blind.manifest, levels=(WIDE,))), tmp_path / "model")
    first, *others = blind.manifest.cell_types
    wrong = replace(blind.manifest, cell_types=(replace(first, ontology_id="B cell"), *others))
    with pytest.raises(BundleIntegrityError, match="'type A': 'B cell' is no ontology id"):
        write_bundle(replace(blind, manifest=wrong), tmp_path / "model")


def test_keys_whose_columns_are_taken() -> None:
    fixed = ("cell_type", "confidence")
    assert find_taken(("broad", "wide"), fixed) == []
    assert find_taken(("cell_type", "broad"), fixed) == ["cell_type"]
    assert find_taken(("cell_type_ontology_term_id",), fixed) == ["cell_type_ontology_term_id"]
    assert find_taken(("strangeness", "broad"), fixed) == ["strangeness"]
    assert find_taken(("broad", "broad_confidence"), fixed) == ["broad_confidence"]
