"""`scrcl_train.found`: a file and a bundle of different runs are told apart, whatever names they share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from scrcl_infer.bundle import read_bundle, write_bundle
from scrcl_infer.contract import Bundle
from scrcl_infer.errors import InputError
from scrcl_infer.rename import rename_bundle_folder
from scrcl_train.found import check_same_run, read_run
from scrcl_train.write import TrainingAnswers, write_training_h5ad
from tests.make_bundle import tiny_bundle

SIZES = (40, 30, 20, 6, 4)


def bundle_of(sizes: tuple[int, ...], data_sha256: str = "0" * 64) -> Bundle:
    """A bundle without a type head, so that its populations can be renamed."""
    bundle = tiny_bundle(n_types=0)
    manifest = bundle.manifest
    populations = tuple(replace(p, n_cells=n) for p, n in zip(manifest.populations, sizes, strict=True))
    provenance = replace(manifest.provenance, data_sha256=data_sha256)
    return replace(bundle, manifest=replace(manifest, populations=populations, provenance=provenance))


@pytest.fixture
def found(tmp_path: Path) -> Path:
    """What training wrote for a hundred cells."""
    rng = np.random.default_rng(0)
    adata = ad.AnnData(rng.poisson(2.0, (100, 40)).astype(np.float32))
    adata.var_names = [f"GENE{i}" for i in range(40)]
    adata.write_h5ad(tmp_path / "cells.h5ad")
    answers = TrainingAnswers(
        rows=np.arange(100),
        populations=rng.permutation(np.repeat(np.arange(5), SIZES)),
        types=None,
        embedding=rng.random((100, 8), dtype=np.float32),
        map=rng.random((100, 2), dtype=np.float32),
    )
    write_training_h5ad(tmp_path / "cells.h5ad", tmp_path / "found.h5ad", answers, bundle_of(SIZES).manifest)
    return tmp_path / "found.h5ad"


def rewrite(found: Path, *, without: tuple[str, ...] = (), n: int = 100) -> Path:
    """The first cells of the file, without what the run wrote down."""
    adata = ad.read_h5ad(found)[:n].copy()
    for key in without:
        del adata.uns["scrcl"][key]
    path = found.with_name("rewritten.h5ad")
    adata.write_h5ad(path)
    return path


def test_the_bundle_of_the_run_is_accepted_also_renamed(found: Path, tmp_path: Path) -> None:
    check_same_run(read_run(found), bundle_of(SIZES), found)
    old = write_bundle(bundle_of(SIZES), tmp_path / "old")
    (tmp_path / "names.csv").write_text("population,name\nP1,T\nP2,T\nP3,B\n")
    renamed = rename_bundle_folder(old, tmp_path / "names.csv", tmp_path / "named").folder
    assert read_bundle(renamed).manifest.name == "named"
    check_same_run(read_run(found), read_bundle(renamed), found)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (bundle_of((41, 29, 20, 6, 4)), "P1 has 40 cells in the file, 41 cells in the bundle; P2 has 30 cells"),
        (bundle_of(SIZES, "1" * 64), "they were trained on other data"),
    ],
)
def test_a_bundle_of_another_run_is_refused_though_all_names_are_shared(found: Path, other: Bundle, said: str) -> None:
    with pytest.raises(InputError, match=rf"bundle 'tiny' are not of the same run: {said}.*genes in both: 40 of 40"):
        check_same_run(read_run(found), other, found)


def test_some_of_the_cells_are_still_of_the_run(found: Path) -> None:
    cut = rewrite(found, n=60)
    check_same_run(read_run(cut), bundle_of(SIZES), cut)


def test_the_cells_are_counted_where_the_file_does_not_say(found: Path) -> None:
    silent = rewrite(found, without=("population_cells", "data_sha256"))
    check_same_run(read_run(silent), bundle_of(SIZES), silent)
    with pytest.raises(InputError, match="P4 has 6 cells in the file, 7 cells in the bundle"):
        check_same_run(read_run(silent), bundle_of((40, 30, 20, 7, 4)), silent)


def test_a_population_of_one_of_the_two_is_named(found: Path) -> None:
    adata = ad.read_h5ad(found)
    adata.obs["scrcl_population"] = adata.obs["scrcl_population"].cat.rename_categories({"P5": "mine"})
    adata.write_h5ad(found.with_name("merged.h5ad"))
    with pytest.raises(InputError, match="mine has 4 cells in the file, no place in the bundle"):
        check_same_run(read_run(found.with_name("merged.h5ad")), bundle_of(SIZES), found)
