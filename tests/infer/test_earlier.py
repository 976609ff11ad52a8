"""`scrcl_infer.earlier`: no answers of one model beside those of another, and nothing lost that others wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scrcl_infer.add import apply_assignment
from scrcl_infer.contract import LabelLevel
from scrcl_infer.pipeline import Model
from scrcl_infer.target import Target
from tests.make_bundle import tiny_bundle

OWN = [f"scrcl_{name}" for name in ("cell_type", "population", "confidence", "margin", "strangeness")]
LEVELS = ["scrcl_broad", "scrcl_broad_confidence"]


@pytest.fixture
def adata() -> ad.AnnData:
    counts = np.random.default_rng(0).poisson(1.0, (60, 40)).astype(np.float32)
    obs, var = (pd.DataFrame(index=[f"{what}{i}" for i in range(n)]) for what, n in (("cell", 60), ("GENE", 40)))
    obs["scrcl_notes"] = "mine"
    return ad.AnnData(counts, obs=obs, var=var)


@pytest.fixture(scope="module")
def plain() -> Model:
    return Model(tiny_bundle(), sha256="abc", threads=1)


@pytest.fixture(scope="module")
def levelled() -> Model:
    """A model with a coarser level and ontology ids."""
    bundle = tiny_bundle()
    types = tuple(replace(t, ontology_id="CL:0000236") for t in bundle.manifest.cell_types)
    levels = (LabelLevel("broad", ("x", "y", "x", "y"), ("", "", "", "")),)
    return Model(replace(bundle, manifest=replace(bundle.manifest, levels=levels, cell_types=types)), sha256="def")


def test_levels_and_ids_of_one_model_do_not_stay_beside_the_types_of_another(
    plain: Model, levelled: Model, adata: ad.AnnData, tmp_path: Path
) -> None:
    apply_assignment(adata, levelled.assign(adata), ontology=True)
    assert list(adata.obs) == ["scrcl_notes", *OWN, *LEVELS, "cell_type_ontology_term_id"]
    adata.write_h5ad(tmp_path / "first.h5ad")
    apply_assignment(adata, plain.assign(adata))
    assert list(adata.obs) == ["scrcl_notes", *OWN], "only what the first run says that it wrote is removed"
    plain.assign_file(tmp_path / "first.h5ad", Target(tmp_path / "second.h5ad"))
    assert list(ad.read_h5ad(tmp_path / "second.h5ad").obs) == list(adata.obs), "memory and file agree"


def test_answers_of_two_models_may_stand_side_by_side(plain: Model, levelled: Model, adata: ad.AnnData) -> None:
    apply_assignment(adata, levelled.assign(adata), obs_prefix="first_")
    apply_assignment(adata, plain.assign(adata), obs_prefix="second_")
    assert {"first_broad", "first_cell_type", "second_cell_type"} <= set(adata.obs)


@pytest.mark.parametrize("about", ["by hand", {"model": "old"}, {"obs_columns": "scrcl_broad"}])
def test_what_no_run_can_have_written_is_no_obstacle(plain: Model, adata: ad.AnnData, about: object) -> None:
    adata.uns["scrcl"] = about
    adata.obs["scrcl_broad"] = "x"
    apply_assignment(adata, plain.assign(adata))
    assert ("scrcl_broad" in adata.obs) == (about != {"obs_columns": "scrcl_broad"})
