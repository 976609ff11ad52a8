"""`scrcl_infer.room`: what must not be replaced is refused, and the cells keep their names."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from scrcl_infer.errors import OutputError
from scrcl_infer.pipeline import Model
from scrcl_infer.target import Target
from tests.make_bundle import tiny_bundle

NAMES = [f"cell{i}" for i in range(30)]


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(tiny_bundle(), sha256="abc", threads=1)


def write_query(path: Path, index: str) -> Path:
    adata = ad.AnnData(np.random.default_rng(0).poisson(1.0, (30, 40)).astype(np.float32))
    adata.var_names = [f"GENE{i}" for i in range(40)]
    adata.obs_names = NAMES
    adata.obs.index.name = index
    adata.write_h5ad(path)
    return path


@pytest.mark.parametrize("force", [False, True])
def test_an_index_named_like_an_answer_is_never_replaced(model: Model, tmp_path: Path, *, force: bool) -> None:
    query, out = write_query(tmp_path / "new.h5ad", "scrcl_margin"), tmp_path / "out.h5ad"
    with pytest.raises(OutputError, match=r"cells are named by the index 'scrcl_margin'.*--obs-prefix.*index\.name"):
        model.assign_file(query, Target(out, force=force))
    assert list(tmp_path.iterdir()) == [query]
    model.assign_file(query, Target(out, obs_prefix="my_"))
    assert list(ad.read_h5ad(out).obs_names) == NAMES


def test_an_index_that_was_an_answer_of_an_earlier_run_stays(model: Model, tmp_path: Path) -> None:
    query, out = write_query(tmp_path / "new.h5ad", "scrcl_broad"), tmp_path / "out.h5ad"
    adata = ad.read_h5ad(query)
    adata.uns["scrcl"] = {"obs_columns": ["scrcl_cell_type", "scrcl_broad"]}
    adata.write_h5ad(query)
    model.assign_file(query, Target(out))
    assert list(ad.read_h5ad(out).obs_names) == NAMES
