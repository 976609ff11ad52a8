"""Bundles on disk: read by other means (json, hashlib, numpy), damaged in every way, written twice."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scrcl_infer.bundle import bundle_sha256, read_bundle, read_manifest, write_bundle
from scrcl_infer.contract import FILES, SCHEMA_VERSION, Bundle, SpatialSpec
from scrcl_infer.errors import BundleIntegrityError, BundleNotFoundError, BundleSchemaError, OutputError
from tests.make_bundle import tiny_bundle

ARRAYS = ("centroids", "gene_graph", "golden", "rejection", "held_out")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """Without a type head: that one has every file."""
    return tiny_bundle(n_types=0)


@pytest.fixture
def folder(bundle: Bundle, tmp_path: Path) -> Path:
    return write_bundle(bundle, tmp_path / "model")


def assert_same(first: Bundle, second: Bundle) -> None:
    assert dataclasses.replace(first.manifest, files={}) == dataclasses.replace(second.manifest, files={})
    assert (first.encoder, first.card) == (second.encoder, second.card)
    assert (first.held_out is None) == (second.held_out is None)
    for part in ARRAYS[: -1 if first.held_out is None else None]:
        one, other = getattr(first, part), getattr(second, part)
        for item in dataclasses.fields(one):
            np.testing.assert_array_equal(getattr(one, item.name), getattr(other, item.name), strict=True)


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads((folder / FILES.manifest).read_text())
    change(data)
    (folder / FILES.manifest).write_text(json.dumps(data))


def replace_file(folder: Path, name: str, data: bytes) -> None:
    """Put in another file with a manifest that agrees, as somebody with bad intent would."""
    (folder / name).write_bytes(data)
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "n_bytes": len(data)}
    edit_manifest(folder, lambda manifest: manifest["files"].update({name: entry}))


@pytest.mark.parametrize("options", [{}, {"n_types": 0}, {"spatial": SpatialSpec(n_neighbors=5, n_steps=10)}])
def test_round_trip(options: dict[str, Any], tmp_path: Path) -> None:
    bundle = tiny_bundle(**options)
    assert_same(read_bundle(write_bundle(bundle, tmp_path / "model")), bundle)


def test_other_programs_can_read_it(bundle: Bundle, folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    manifest = json.loads((folder / FILES.manifest).read_text())
    assert manifest["schema_version"] == SCHEMA_VERSION
    for name, entry in manifest["files"].items():
        data = (folder / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(data).hexdigest(), "n_bytes": len(data)}
    with np.load(folder / FILES.golden, allow_pickle=False) as golden:
        np.testing.assert_array_equal(golden["counts"], bundle.golden.counts)
    assert (folder / FILES.encoder).read_bytes() == bundle.encoder
    assert (folder / FILES.card).read_text() == bundle.card


def test_same_bytes_every_time(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    again = write_bundle(read_bundle(folder), tmp_path / "again")
    for name in FILES:
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name


def test_memory_order_leaves_no_trace(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    golden = dataclasses.replace(bundle.golden, counts=np.asfortranarray(bundle.golden.counts))
    again = write_bundle(dataclasses.replace(bundle, golden=golden), tmp_path / "again")
    assert bundle_sha256(again) == bundle_sha256(folder)


def test_sha256_of_folder_and_manifest(folder: Path) -> None:
    expected = hashlib.sha256((folder / FILES.manifest).read_bytes()).hexdigest()
    assert bundle_sha256(folder) == expected
    assert bundle_sha256(read_manifest(folder)) == expected


def test_a_whole_number_for_a_float_changes_nothing(bundle: Bundle, tmp_path: Path) -> None:
    calibration = dataclasses.replace(bundle.manifest.calibration, temperature=1)
    manifest = dataclasses.replace(bundle.manifest, calibration=calibration)
    folder = write_bundle(dataclasses.replace(bundle, manifest=manifest), tmp_path / "model")
    assert bundle_sha256(read_manifest(folder)) == bundle_sha256(folder)


def test_permissions_follow_the_umask(bundle: Bundle, tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        folder = write_bundle(bundle, tmp_path / "model")
    finally:
        os.umask(old)
    assert folder.stat().st_mode & 0o777 == 0o750
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o640}


def test_makes_parents_and_fills_an_empty_folder(bundle: Bundle, tmp_path: Path) -> None:
    assert read_manifest(write_bundle(bundle, tmp_path / "a" / "b")).name == "tiny"
    (tmp_path / "empty").mkdir()
    assert read_manifest(write_bundle(bundle, tmp_path / "empty")).name == "tiny"


def test_an_existing_bundle_needs_force(bundle: Bundle, folder: Path) -> None:
    other = dataclasses.replace(bundle, card="another\n")
    with pytest.raises(OutputError, match="--force"):
        write_bundle(other, folder)
    assert read_bundle(folder).card == bundle.card
    (folder / "stray.txt").write_text("left behind by somebody")
    write_bundle(other, folder, force=True)
    assert read_bundle(folder).card == "another\n"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_what_is_not_a_bundle_is_never_replaced(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    (tmp_path / "file").write_text("a file")
    for name in ("thesis", "file", "file/model"):
        with pytest.raises(OutputError):
            write_bundle(bundle, tmp_path / name, force=True)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"
    assert (tmp_path / "file").read_text() == "a file"


def test_a_link_is_followed(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    written = write_bundle(dataclasses.replace(bundle, card="another\n"), tmp_path / "link", force=True)
    assert written == folder
    assert (tmp_path / "link").is_symlink()
    assert read_bundle(tmp_path / "link").card == "another\n"


@pytest.mark.parametrize("fails_at", range(1, 9))
def test_a_failed_write_leaves_the_old_bundle(
    fails_at: int, bundle: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fail at each flush and at each renaming in turn."""
    calls = 0

    def count(real: Callable[..., object]) -> Callable[..., object]:
        def counted(*args: object) -> object:
            nonlocal calls
            calls += 1
            if calls == fails_at:
                raise OSError(28, "No space left on device")
            return real(*args)

        return counted

    monkeypatch.setattr(os, "fsync", count(os.fsync))  # six files, the new folder: calls 1 to 7
    monkeypatch.setattr(Path, "rename", count(Path.rename))  # the old one aside: call 8
    with pytest.raises(OutputError, match="No space left"):
        write_bundle(dataclasses.replace(bundle, card="another\n"), folder, force=True)
    monkeypatch.undo()
    assert read_bundle(folder).card == bundle.card
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_the_old_bundle_comes_back_when_the_last_step_fails(
    bundle: Bundle, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def refuse_new(path: Path, target: Path) -> Path:
        if path.suffix == ".new":
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_new)
    with pytest.raises(OutputError, match="Input/output error"):
        write_bundle(dataclasses.replace(bundle, card="another\n"), folder, force=True)
    assert read_bundle(folder).card == bundle.card


@pytest.mark.parametrize("name", [name for name in FILES if name != FILES.manifest])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_names_the_damaged_file(name: str, damage: str, folder: Path) -> None:
    path = folder / name
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif damage == "cut":
        path.write_bytes(data[:-1])
    else:
        path.unlink()
    with pytest.raises(BundleIntegrityError, match=name.replace(".", r"\.")):
        read_bundle(folder)


@pytest.mark.parametrize("kind", ["object array", "plain pickle", "missing array", "extra array", "not a zip"])
def test_refuses_other_arrays(kind: str, folder: Path) -> None:
    import pickle

    buffer = io.BytesIO()
    good: dict[str, Any] = {"centroids": np.zeros((5, 8), np.float32), "radii": np.zeros(5, np.float32)}
    if kind == "object array":
        np.savez(buffer, centroids=good["centroids"], radii=np.array([{"a": 1}] * 5, dtype=object))
    elif kind == "plain pickle":
        pickle.dump(good, buffer)
    elif kind == "missing array":
        np.savez(buffer, centroids=good["centroids"])
    elif kind == "extra array":
        np.savez(buffer, **good, more=np.zeros(1))
    else:
        buffer.write(b"PK but not a zip")
    replace_file(folder, FILES.centroids, buffer.getvalue())
    with pytest.raises(BundleIntegrityError, match=r"centroids\.npz") as caught:
        read_bundle(folder)
    assert str(folder) in caught.value.__notes__[0]


def test_refuses_a_schema_from_the_future(folder: Path) -> None:
    edit_manifest(folder, lambda data: data.update(schema_version=SCHEMA_VERSION + 1, news="unheard of"))
    with pytest.raises(BundleSchemaError, match=rf"schema version {SCHEMA_VERSION + 1}.*pip install -U"):
        read_bundle(folder)


def test_refuses_a_schema_from_the_past(folder: Path) -> None:
    edit_manifest(folder, lambda data: data.update(schema_version=0))
    with pytest.raises(BundleSchemaError, match="Export the model again"):
        read_manifest(folder)


@pytest.mark.parametrize("version", [None, "1", True, 1.0])
def test_refuses_a_manifest_without_a_schema(version: object, folder: Path) -> None:
    edit_manifest(folder, lambda data: data.update(schema_version=version))
    with pytest.raises(BundleSchemaError, match="no schema_version"):
        read_manifest(folder)


def test_refuses_unknown_keys_and_says_where(folder: Path) -> None:
    edit_manifest(folder, lambda data: data["calibration"].update(mood="sunny"))
    with pytest.raises(BundleSchemaError, match=r"Calibration: unknown keys \['mood'\]") as caught:
        read_bundle(folder)
    assert str(folder / FILES.manifest) in caught.value.__notes__[0]


@pytest.mark.parametrize("name", ["../../outside", "extra.bin"])
def test_reads_no_files_but_its_own(name: str, folder: Path) -> None:
    edit_manifest(folder, lambda data: data["files"].update({name: data["files"][FILES.card]}))
    with pytest.raises(BundleSchemaError, match="lists the files"):
        read_bundle(folder)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "\xff"])
def test_refuses_a_manifest_that_is_no_manifest(text: str, folder: Path) -> None:
    (folder / FILES.manifest).write_bytes(text.encode("latin-1"))
    with pytest.raises((BundleIntegrityError, BundleSchemaError), match=r"manifest\.json"):
        read_bundle(folder)


@pytest.mark.parametrize("read", [read_bundle, read_manifest, bundle_sha256])
def test_says_that_there_is_no_bundle(read: Callable[[Path], object], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "file"):
        with pytest.raises(BundleNotFoundError, match="is not a bundle"):
            read(path)


def test_refuses_parts_that_do_not_fit(bundle: Bundle, folder: Path, tmp_path: Path) -> None:
    wrong = dataclasses.replace(bundle, centroids=tiny_bundle(dim=9).centroids)
    with pytest.raises(BundleIntegrityError, match=r"centroids\.npz/centroids is float32 \(5, 9\), expected"):
        write_bundle(wrong, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()
    other = write_bundle(tiny_bundle(dim=9), tmp_path / "other")
    replace_file(folder, FILES.centroids, (other / FILES.centroids).read_bytes())
    with pytest.raises(BundleIntegrityError, match="do not fit together"):
        read_bundle(folder)


def test_refuses_numbers_that_json_has_not(bundle: Bundle, tmp_path: Path) -> None:
    parity = dataclasses.replace(bundle.manifest.parity, max_abs_diff=float("nan"))
    wrong = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, parity=parity))
    with pytest.raises(BundleIntegrityError, match="not finite"):
        write_bundle(wrong, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_copied_folder_is_the_same_bundle(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    assert_same(read_bundle(tmp_path / "copy"), read_bundle(folder))
