"""`scrcl-assign --ontology` as a user meets it: columns, report and refusals."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from scrcl_infer.bundle import write_bundle
from scrcl_infer.cli import main
from scrcl_infer.contract import LabelLevel
from tests.make_bundle import tiny_bundle


def assign(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["scrcl-assign", "new.h5ad", "--model", "./model", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    adata = ad.AnnData(np.random.default_rng(0).poisson(1.0, (30, 40)).astype(np.float32))
    adata.var_names = [f"GENE{i}" for i in range(40)]
    adata.obs_names = [f"cell{i}" for i in range(30)]
    adata.write_h5ad(tmp_path / "new.h5ad")
    return tmp_path


def test_ids_and_levels_are_in_the_table_and_the_report(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tiny_bundle()
    types = tuple(replace(t, ontology_id="CL:0000236") for t in bundle.manifest.cell_types)
    levels = (LabelLevel("broad", ("x", "y", "x", "y"), ("",) * 4),)
    write_bundle(replace(bundle, manifest=replace(bundle.manifest, cell_types=types, levels=levels)), folder / "model")
    assert assign(folder, monkeypatch, "-o", "out.tsv", "--ontology", "--report", "report.json") == 0
    header, first, *_ = (line.split("\t") for line in Path("out.tsv").read_text().splitlines())
    assert header[5:] == ["scrcl_strangeness", "scrcl_broad", "scrcl_broad_confidence", "cell_type_ontology_term_id"]
    assert (first[6], first[8]) in {("x", "CL:0000236"), ("y", "CL:0000236"), ("unknown", "unknown")}
    report = json.loads(Path("report.json").read_text())
    assert report["output"]["obs_columns"] == header[1:]
    assert sum(report["levels"]["broad"].values()) == 30


@pytest.mark.parametrize("words", [("-o", "out.tsv"), ("-o", "out.h5ad"), (), ("--dry-run",)])
def test_a_model_without_ids_is_refused_before_any_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    write_bundle(tiny_bundle(), folder / "model")
    assert assign(folder, monkeypatch, "--ontology", *words) == 6
    out, err = capsys.readouterr()
    assert out == ""
    assert "have no ontology ids" in err
    assert sorted(path.name for path in folder.iterdir()) == ["model", "new.h5ad"]
