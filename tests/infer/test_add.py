"""`scrcl_infer.add`: an AnnData gets in memory what a file gets on disk."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

from scrcl_infer.add import apply_assignment
from scrcl_infer.errors import InputError
from scrcl_infer.pipeline import Model
from scrcl_infer.target import Target
from tests.make_bundle import tiny_bundle


@pytest.fixture
def adata() -> ad.AnnData:
    counts = np.random.default_rng(0).poisson(1.0, (60, 40)).astype(np.float32)
    counts[7] = 0
    names = pd.DataFrame(index=[f"cell{i}" for i in range(60)]), pd.DataFrame(index=[f"GENE{i}" for i in range(40)])
    return ad.AnnData(counts, obs=names[0], var=names[1])


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(tiny_bundle(), sha256="abc", threads=1)


def test_memory_and_file_hold_the_same(model: Model, adata: ad.AnnData, tmp_path: Path) -> None:
    adata.write_h5ad(tmp_path / "new.h5ad")
    model.assign_file(tmp_path / "new.h5ad", Target(tmp_path / "out.h5ad", obs_prefix="my_"))
    written = ad.read_h5ad(tmp_path / "out.h5ad")
    apply_assignment(adata, model.assign(adata), obs_prefix="my_")
    pd.testing.assert_frame_equal(adata.obs, written.obs)
    for key in ("X_scrcl", "X_scrcl_map"):
        np.testing.assert_array_equal(adata.obsm[key], written.obsm[key])
    described = adata.uns["scrcl"]
    assert set(described) == set(written.uns["scrcl"])
    for key, value in described.items():
        np.testing.assert_array_equal(value, written.uns["scrcl"][key])


def test_other_cells_are_refused(model: Model, adata: ad.AnnData) -> None:
    answers = model.assign(adata)
    with pytest.raises(InputError, match="another order"):
        apply_assignment(adata[::-1].copy(), answers)
    with pytest.raises(InputError, match="subset both alike"):
        apply_assignment(adata[:10].copy(), answers)
    assert "X_scrcl" not in adata.obsm


def test_the_result_can_be_written_by_anndata(model: Model, adata: ad.AnnData, tmp_path: Path) -> None:
    apply_assignment(adata, model.assign(adata))
    adata.write_h5ad(tmp_path / "out.h5ad")
    assert ad.read_h5ad(tmp_path / "out.h5ad").uns["scrcl"]["model"] == "tiny"
