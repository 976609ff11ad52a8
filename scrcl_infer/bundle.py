"""Read and write a bundle folder. The same file does both, so that they cannot drift apart.

Bytes are deterministic: the same bundle always makes the same files. Nothing in a bundle is, or is read as, a pickle.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import secrets
import shutil
from pathlib import Path

from scrcl_infer.arrays import GET_AGAIN, from_npz, read_rejection, to_npz
from scrcl_infer.consistency import check_consistent
from scrcl_infer.contract import FILES, OLDEST_SCHEMA_VERSION, SCHEMA_VERSION, Bundle, FileEntry, Manifest
from scrcl_infer.errors import BundleIntegrityError, BundleNotFoundError, BundleSchemaError, OutputError
from scrcl_infer.parts import Centroids, GeneGraph, Golden, HeldOutAnswers, Rejection

_LISTED = tuple(name for name in FILES if name != FILES.manifest)
REJECTION_SCHEMA = 3
"""`rejection.npz` of a schema before that holds other arrays."""
LATER_SIGNS = {"rarity": (6, 3), "doubt": (4, 4)}
"""Signs of strangeness that it has since the schema, and in which column."""

logger = logging.getLogger(__name__)


def write_bundle(bundle: Bundle, folder: Path, *, force: bool = False) -> Path:
    """Write a bundle as a whole or not at all.

    The files are written to a new folder beside the target, flushed to the disk, and the folder is then renamed.

    Parameters
    ----------
    bundle
        `manifest.files` may be empty: checksums and sizes are filled in.
    folder
        The bundle's folder; missing parents are made.
    force
        Replace a bundle that stands there. Anything else that stands there is never replaced.

    Returns
    -------
    Path
        The folder, absolute.

    Raises
    ------
    BundleIntegrityError
        Arrays and manifest do not fit together.
    OutputError
        Something stands at `folder` already, or it cannot be written.
    """
    folder = folder.expanduser().resolve()
    check_consistent(bundle)
    check_folder(folder, force=force)
    contents = {
        FILES.encoder: bundle.encoder,
        FILES.centroids: to_npz(bundle.centroids),
        FILES.gene_graph: to_npz(bundle.gene_graph),
        FILES.golden: to_npz(bundle.golden),
        FILES.card: bundle.card.encode(),
    }
    if bundle.rejection is not None:
        contents[FILES.rejection] = to_npz(bundle.rejection)
    if bundle.held_out is not None:
        contents[FILES.held_out] = to_npz(bundle.held_out)
    entries = {name: FileEntry(hashlib.sha256(data).hexdigest(), len(data)) for name, data in contents.items()}
    contents[FILES.manifest] = _manifest_bytes(dataclasses.replace(bundle.manifest, files=entries))
    token = secrets.token_hex(4)
    new = folder.parent / f".{folder.name}.{token}.new"
    old = folder.parent / f".{folder.name}.{token}.old"
    try:
        new.mkdir(parents=True)
        for name, data in contents.items():
            _write_flushed(new / name, data)
        _flush_folder(new)
        _swap(new, folder, old)
        _flush_folder(folder.parent)
    except OSError as error:
        msg = f"{folder}: the bundle cannot be written there ({error}). Choose a folder that you may write to."
        raise OutputError(msg) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def read_bundle(folder: Path) -> Bundle:
    """Read a bundle and check that it is whole: schema, sizes, checksums, array names, dtypes and shapes.

    Raises
    ------
    BundleNotFoundError
        There is no bundle at `folder`.
    BundleSchemaError
        Its schema is unknown to this version.
    BundleIntegrityError
        A file is missing or changed, or does not fit the manifest; the text names it.
    """
    manifest = read_manifest(folder)
    if set(manifest.files) | {FILES.rejection, FILES.held_out} != set(_LISTED):
        msg = f"{folder / FILES.manifest}: lists the files {sorted(manifest.files)}, expected {sorted(_LISTED)}."
        raise BundleSchemaError(msg)
    data = {name: _read_checked(folder / name, entry) for name, entry in manifest.files.items()}
    try:
        bundle = Bundle(
            manifest=manifest,
            encoder=data[FILES.encoder],
            centroids=from_npz(data[FILES.centroids], Centroids, FILES.centroids),
            gene_graph=from_npz(data[FILES.gene_graph], GeneGraph, FILES.gene_graph),
            golden=from_npz(data[FILES.golden], Golden, FILES.golden),
            card=data[FILES.card].decode(),
            rejection=_read_rejection(data, manifest),
            held_out=(
                from_npz(data[FILES.held_out], HeldOutAnswers, FILES.held_out) if FILES.held_out in data else None
            ),
        )
        check_consistent(bundle)
    except BundleIntegrityError as error:
        error.add_note(f"in the bundle {folder}")
        raise
    return bundle


def _read_rejection(data: dict[str, bytes], manifest: Manifest) -> Rejection | None:
    """Read what makes a cell strange; None where there is none, or one of another kind."""
    if FILES.rejection not in data:
        return None
    if manifest.schema_version < REJECTION_SCHEMA:
        logger.warning(
            "The model '%s' is of schema %d and measures strangeness in a way that is no longer used: its cells are "
            "unknown by their probability alone. Train it anew.",
            manifest.name,
            manifest.schema_version,
        )
        return None
    unknown = {name: column for name, (since, column) in LATER_SIGNS.items() if manifest.schema_version < since}
    return read_rejection(data[FILES.rejection], FILES.rejection, unknown, len(manifest.genes.names))


def read_manifest(folder: Path) -> Manifest:
    """Read `manifest.json` alone; the other files are not looked at.

    Raises
    ------
    BundleNotFoundError
        There is no `manifest.json` in `folder`.
    BundleSchemaError
        Its schema is unknown to this version.
    BundleIntegrityError
        It is not JSON.
    """
    path = folder / FILES.manifest
    try:
        data = json.loads(_manifest_file(folder))
    except ValueError as error:
        msg = f"{path}: is not JSON ({error}). {GET_AGAIN}"
        raise BundleIntegrityError(msg) from error
    version = data.get("schema_version") if isinstance(data, dict) else None
    if type(version) is not int:
        msg = f"{path}: has no schema_version. It is not the manifest of a scrcl bundle."
        raise BundleSchemaError(msg)
    if not OLDEST_SCHEMA_VERSION <= version <= SCHEMA_VERSION:
        todo = (
            "Upgrade with `pip install -U scrcl`."
            if version > SCHEMA_VERSION
            else "Export the model again with scrcl-train."
        )
        msg = (
            f"{path}: schema version {version}; this version of scrcl reads {OLDEST_SCHEMA_VERSION} to "
            f"{SCHEMA_VERSION}. {todo}"
        )
        raise BundleSchemaError(msg)
    try:
        return Manifest.from_dict(data)
    except BundleSchemaError as error:
        error.add_note(f"in {path}")
        raise


def bundle_sha256(bundle: Path | Manifest) -> str:
    """Return the sha256 of the manifest's bytes, which hold all other checksums and so stand for the bundle.

    Parameters
    ----------
    bundle
        A bundle folder, or a manifest of the newest schema as `read_bundle` gives it.
    """
    data = _manifest_bytes(bundle) if isinstance(bundle, Manifest) else _manifest_file(bundle)
    return hashlib.sha256(data).hexdigest()


def _manifest_file(folder: Path) -> bytes:
    path = folder / FILES.manifest
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        msg = f"{folder}: is not a bundle, it holds no {FILES.manifest}. A bundle is the folder that scrcl-train wrote."
        raise BundleNotFoundError(msg) from error


def _manifest_bytes(manifest: Manifest) -> bytes:
    # Once through from_dict, so that a float given as 1 is written as 1.0, as it will be after reading.
    data = Manifest.from_dict(manifest.to_dict()).to_dict()
    try:
        return (json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except ValueError as error:
        msg = f"{FILES.manifest}: holds a number that is not finite ({error}). Train or export the model again."
        raise BundleIntegrityError(msg) from error


def _read_checked(path: Path, entry: FileEntry) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"{path}: cannot be read ({error.strerror}), but the manifest lists it. {GET_AGAIN}"
        raise BundleIntegrityError(msg) from error
    found = hashlib.sha256(data).hexdigest()
    if found != entry.sha256 or len(data) != entry.n_bytes:
        msg = (
            f"{path}: has {len(data)} bytes and sha256 {found}, the manifest says {entry.n_bytes} bytes and "
            f"{entry.sha256}. {GET_AGAIN}"
        )
        raise BundleIntegrityError(msg)
    return data


def check_folder(folder: Path, *, force: bool) -> None:
    """Refuse a folder that must not be replaced by a bundle: one that is none, or a bundle without `force`.

    Raises
    ------
    OutputError
        The text says what stands there.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / FILES.manifest).is_file():
        msg = f"{folder}: exists and is not a bundle, so it is not replaced. Choose another name."
        raise OutputError(msg)
    if not force:
        msg = f"{folder}: a bundle is there already. Choose another name, or replace it with --force (force=True)."
        raise OutputError(msg)


def _swap(new: Path, folder: Path, old: Path) -> None:
    """Rename `new` to `folder`; what stood there goes to `old`, and comes back if the renaming fails."""
    if not folder.exists():
        new.rename(folder)
        return
    folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        old.rename(folder)
        raise


def _write_flushed(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
