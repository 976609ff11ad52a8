"""Which folder a name stands for, and what is said when it stands for none."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from scrcl_infer import catalog
from scrcl_infer.catalog import DEFAULT_MODEL, find_bundle, list_bundles, search_folders
from scrcl_infer.contract import FILES
from scrcl_infer.errors import BundleNotFoundError

V1 = Path(__file__).parents[1] / "data" / "bundles" / "v1"


@pytest.fixture
def shelves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two folders of bundles, 'lung' in both and 'worm' in the second, and nothing shipped along."""
    first, second = tmp_path / "first", tmp_path / "second"
    for path in (first / "lung", second / "lung", second / "worm"):
        shutil.copytree(V1, path)
    (second / "notes").mkdir()
    (second / "readme.txt").write_text("not a bundle")
    monkeypatch.setenv("SCRCL_MODELS", os.pathsep.join(map(str, (first, tmp_path / "absent", second))))
    monkeypatch.setattr(catalog, "__file__", str(tmp_path / "site-packages" / "scrcl_infer" / "catalog.py"))
    monkeypatch.chdir(tmp_path)
    return first, second


def test_the_first_folder_with_that_name_wins(shelves: tuple[Path, Path]) -> None:
    first, second = shelves
    assert find_bundle("lung") == (first / "lung", "")
    assert find_bundle("worm") == (second / "worm", "")
    assert list_bundles() == [first / "lung", second / "worm"]


@pytest.mark.parametrize("spell", [str, Path])
def test_a_path_is_taken_as_given(spell: type, shelves: tuple[Path, Path]) -> None:
    _, second = shelves
    assert find_bundle(spell(second / "lung"))[0] == second / "lung"
    shutil.copytree(V1, "here")
    assert find_bundle(spell("here"))[0] == Path("here")
    assert find_bundle(f".{os.sep}here")[0] == Path("here")


def test_a_folder_in_the_working_directory_goes_before_the_search(shelves: tuple[Path, Path]) -> None:
    shutil.copytree(V1, "lung")
    assert find_bundle("lung")[0] == Path("lung")


def test_home_is_understood(shelves: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(shelves[0]))
    assert find_bundle("~/lung")[0] == shelves[0] / "lung"
    monkeypatch.setenv("SCRCL_MODELS", "~")
    assert find_bundle("lung")[0] == shelves[0] / "lung"


def test_the_default_is_said_aloud(shelves: tuple[Path, Path]) -> None:
    with pytest.raises(BundleNotFoundError, match=DEFAULT_MODEL):
        find_bundle(None)
    folder = shelves[1] / DEFAULT_MODEL
    shutil.copytree(V1, folder)
    path, sentence = find_bundle()
    assert path == folder
    assert DEFAULT_MODEL in sentence
    assert "--model" in sentence


def test_an_unknown_name_lists_what_there_is(shelves: tuple[Path, Path]) -> None:
    with pytest.raises(BundleNotFoundError, match=r"did you mean 'lung'\? There are: lung, worm\. Searched: .*first"):
        find_bundle("lnug")
    with pytest.raises(BundleNotFoundError, match=r"'kidney'\. There are: lung, worm\."):
        find_bundle("kidney")


def test_says_what_a_wrong_path_is(shelves: tuple[Path, Path]) -> None:
    first, second = shelves
    with pytest.raises(BundleNotFoundError, match=f"holds no {FILES.manifest}"):
        find_bundle(second / "notes")
    with pytest.raises(BundleNotFoundError, match="no such folder"):
        find_bundle(second / "absent")
    with pytest.raises(BundleNotFoundError, match="no such folder"):
        find_bundle(Path("lung"))  # a Path is never a name
    with pytest.raises(BundleNotFoundError, match="it is a file"):
        find_bundle(second / "readme.txt")
    with pytest.raises(BundleNotFoundError, match=f"give {first / 'lung'}"):
        find_bundle(first / "lung" / FILES.encoder)
    for name in (".", "..", ""):
        with pytest.raises(BundleNotFoundError):
            find_bundle(name)


def test_a_name_cannot_leave_the_shelf(shelves: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRCL_MODELS", str(shelves[0]))
    with pytest.raises(BundleNotFoundError):
        find_bundle("../second/elsewhere")


def test_without_any_folder(shelves: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SCRCL_MODELS")
    assert search_folders() == []
    assert list_bundles() == []
    with pytest.raises(BundleNotFoundError, match=r"There are: none\. Searched: nothing"):
        find_bundle("lung")


def test_bundles_shipped_with_the_package(shelves: tuple[Path, Path], tmp_path: Path) -> None:
    site = tmp_path / "site-packages"
    shutil.copytree(V1, site / "scrcl_infer" / "_models" / "shipped")
    shutil.copytree(V1, site / "models" / "of-another-package")
    assert search_folders() == [*shelves, site / "scrcl_infer" / "_models"]
    assert find_bundle("shipped")[0] == site / "scrcl_infer" / "_models" / "shipped"
    # With a pyproject.toml beside the package it is a source tree, and `models` is ours.
    (site / "pyproject.toml").touch()
    assert search_folders()[-1] == site / "models"
