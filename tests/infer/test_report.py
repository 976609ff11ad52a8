"""`scrcl_infer.report`: what a pipeline reads from it, and what a person does."""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from scrcl_infer.errors import OutputError
from scrcl_infer.report import (
    LEVEL_NAMES,
    REPORT_SCHEMA_VERSION,
    build_report,
    compute_sha256,
    explain_unknown,
    format_summary,
    read_peak_rss,
    read_versions,
    write_report,
)
from scrcl_infer.result import GeneReport, MatrixReport, RejectionReport, Summary

NO_CELLS = RejectionReport(
    reject=True,
    rejected_by="strangeness or probability",
    threshold=0.5,
    temperature=1.2,
    n_unknown_strange=0,
    n_unknown_improbable=0,
    n_unknown_empty=0,
)
SUMMARY = Summary(
    n_cells=1000,
    n_unknown=60,
    n_empty=10,
    cells_per_type={"B": 40, "CD4 T": 900, "unknown": 60},
    mean_confidence=0.87654321,
    matrix=MatrixReport("layers/counts", "counts", "whole numbers, X holds logs"),
    genes=GeneReport(2000, 1990, 0.9912345, "var_names as symbols", 3, 17, ("MALAT1", "β")),
    rejection=replace(NO_CELLS, n_unknown_strange=42, n_unknown_improbable=8, n_unknown_empty=10),
    warnings=("the copy replaces obs/scrcl_margin",),
    extra={"model": {"name": "human-pbmc", "sha256": "ab"}, "timings_s": {"total": 1.25}},
)


def test_the_report_holds_what_pipelines_ask_for(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_report(SUMMARY, path)
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report["schema_version"] == REPORT_SCHEMA_VERSION
    assert (report["n_cells"], report["n_unknown"], report["n_empty"]) == (1000, 60, 10)
    assert report["unknown_rate"] == 0.06
    assert report["cells_per_type"] == {"B": 40, "CD4 T": 900, "unknown": 60}
    assert sum(report["cells_per_type"].values()) == report["n_cells"]
    assert (report["matrix"]["where"], report["matrix"]["state"]) == ("layers/counts", "counts")
    assert report["matrix"]["reason"] == "whole numbers, X holds logs"
    assert report["genes"]["n_found"] == 1990
    assert report["genes"]["weighted_overlap"] == 0.9912345
    assert report["genes"]["missing_top"] == ["MALAT1", "β"]
    assert report["model"]["sha256"] == "ab"
    assert report["timings_s"] == {"total": 1.25}
    assert report["warnings"] == ["the copy replaces obs/scrcl_margin"]
    assert report["versions"]["onnxruntime"] == metadata.version("onnxruntime")
    assert report["peak_rss_bytes"] > 10_000_000


def test_an_existing_report_needs_force(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_report(SUMMARY, path)
    with pytest.raises(OutputError, match="--force"):
        write_report(SUMMARY, path)
    write_report(SUMMARY, path, force=True)
    assert list(tmp_path.iterdir()) == [path]


def test_a_report_on_no_cells_has_a_rate_of_zero() -> None:
    empty = Summary(0, 0, 0, {}, 0.0, SUMMARY.matrix, SUMMARY.genes, NO_CELLS)
    assert build_report(empty)["unknown_rate"] == 0
    assert "cells    0" in format_summary(empty)


def test_the_summary_for_people_orders_types_and_says_unknown_last() -> None:
    lines = format_summary(SUMMARY).splitlines()
    assert lines[0] == "cells    1,000 assigned by human-pbmc in 1.2 s"
    assert "layers/counts as counts" in lines[1]
    assert "1,990 of 2,000 found, 99.1% of the model's evidence (var_names as symbols" in lines[2]
    assert "3 duplicates summed, 17 features of other kinds left out" in lines[2]
    assert [line.split()[0] for line in lines[3:6]] == ["CD4", "B", "unknown"]
    assert lines[3].endswith("900   90.0%")
    assert lines[5].endswith("60    6.0%  (42 too strange, 8 too improbable, 10 without counts in the model's genes)")
    assert lines[6] == "warning  the copy replaces obs/scrcl_margin"


def test_reasons_that_no_cell_has_are_left_out() -> None:
    assert explain_unknown(SUMMARY) == "42 too strange, 8 too improbable, 10 without counts in the model's genes"
    assert explain_unknown(replace(SUMMARY, rejection=replace(NO_CELLS, n_unknown_strange=1234))) == "1,234 too strange"
    assert explain_unknown(replace(SUMMARY, rejection=NO_CELLS)) == ""


def test_the_summary_for_people_has_a_line_for_each_coarser_level() -> None:
    many = {f"name {i}": 100 - i for i in range(LEVEL_NAMES + 3)}
    levelled = replace(SUMMARY, extra={"levels": {"broad": {"unknown": 60, "T": 900, "B": 40}, "deep": many}})
    lines = [line for line in format_summary(levelled).splitlines() if line.startswith("level ")]
    assert lines[0] == "level    broad: T 900, B 40, unknown 60"
    assert lines[1].startswith("level    deep: name 0 100, name 1 99, ")
    assert lines[1].endswith(f"name {LEVEL_NAMES - 1} {101 - LEVEL_NAMES}, 3 more")
    assert len(lines) == 2
    assert "level " not in format_summary(SUMMARY)


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(bytes(range(256)) * 5000)
    assert compute_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_versions_of_what_is_not_installed_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert read_versions()["onnxruntime"] == "not installed"


def test_peak_memory_grows_by_what_is_held() -> None:
    code = "import numpy as np; from scrcl_infer.report import read_peak_rss as r; a = r(); np.ones(8_000_000)"
    code += "; print(r() - a)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 40e6 < int(done.stdout) < 90e6  # 64 MB of float64, less what was free


def test_peak_memory_is_no_more_than_the_systems_own_figure() -> None:
    held = np.ones(1_000_000)
    assert held.nbytes < read_peak_rss() <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 * 1.05
