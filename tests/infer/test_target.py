"""`scrcl_infer.target`: targets are named rightly, refused early, and never the input."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scrcl_infer.errors import OutputError
from scrcl_infer.target import STDOUT, Labels, Target, check_target, encode, find_ending


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "new.h5ad"
    path.write_bytes(b"input")
    return path


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("a.h5ad", ".h5ad"),
        ("a.b.csv", ".csv"),
        ("A.CSV.GZ", ".csv.gz"),
        ("x.tsv.gz", ".tsv.gz"),
        ("x.parquet", ".parquet"),
    ],
)
def test_endings(name: str, ending: str) -> None:
    assert find_ending(Path("folder.h5ad") / name) == ending


@pytest.mark.parametrize("name", ["out", "out.xlsx", "out.h5ad.bak", "csv", "out.h5"])
def test_other_endings_are_refused_with_the_list_of_known_ones(name: str) -> None:
    with pytest.raises(OutputError, match=r"must end in one of \.h5ad, \.csv"):
        find_ending(Path(name))


def test_the_input_is_never_the_target_even_with_force(source: Path, tmp_path: Path) -> None:
    alias = tmp_path / "alias.h5ad"
    alias.symlink_to(source)
    hard = tmp_path / "hard.h5ad"
    hard.hardlink_to(source)
    for path in (source, alias, hard, tmp_path / "." / "new.h5ad"):
        with pytest.raises(OutputError, match="inputs are never changed"):
            check_target(Target(path, force=True), source)


def test_an_existing_target_needs_force(source: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.tsv"
    path.write_text("old")
    with pytest.raises(OutputError, match=r"exists\. Name another file, or replace it with --force"):
        check_target(Target(path), source)
    check_target(Target(path, force=True), source)
    assert path.read_text() == "old"


def test_a_missing_folder_and_a_folder_as_target_are_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"nowhere' does not exist\. Create it"):
        check_target(Target(tmp_path / "nowhere" / "out.tsv"), source)
    (tmp_path / "folder.tsv").mkdir()
    with pytest.raises(OutputError, match="it is a folder"):
        check_target(Target(tmp_path / "folder.tsv", force=True), source)


def test_standard_output_needs_no_check_and_an_anndata_has_no_file_to_copy(tmp_path: Path) -> None:
    check_target(Target(STDOUT), None)
    check_target(Target(tmp_path / "out.csv"), None)
    with pytest.raises(OutputError, match="only an input file can be copied"):
        check_target(Target(tmp_path / "out.h5ad"), None)


def test_a_prefix_with_a_slash_is_refused() -> None:
    with pytest.raises(OutputError, match="'a/b' of the obs columns"):
        check_target(Target(STDOUT, obs_prefix="a/b"), None)


def test_the_prefix_stands_before_all_columns() -> None:
    assert Target(STDOUT, obs_prefix="my_").columns == ("my_cell_type", "my_population", "my_confidence", "my_margin")


def test_minus_one_becomes_unknown() -> None:
    np.testing.assert_array_equal(encode(np.array([0, -1, 1], np.int32), ("a", "b", "unknown")), [0, 2, 1])
    np.testing.assert_array_equal(encode(np.array([0, -1, 1], np.int32), ("unknown", "b")), [0, 0, 1])


def test_labels_add_unknown_once() -> None:
    named: Any = SimpleNamespace
    manifest: Any = SimpleNamespace(
        populations=(named(name="P1"), named(name="P2")), cell_types=(named(name="B"), named(name="unknown"))
    )
    assert Labels.from_manifest(manifest) == Labels(("P1", "P2", "unknown"), ("B", "unknown"))
