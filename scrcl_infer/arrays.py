"""The arrays of a bundle's parts as the bytes of `.npz` files, and back. Nothing is, or is read as, a pickle."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from typing import Any, TypeVar

import numpy as np

from scrcl_infer.errors import BundleIntegrityError
from scrcl_infer.parts import Centroids, GeneGraph, Golden, HeldOutAnswers, Rejection

_Arrays = TypeVar("_Arrays", Centroids, GeneGraph, Golden, HeldOutAnswers, Rejection)
GET_AGAIN = "The bundle was changed or damaged: get it again from where it came from."


def to_npz(arrays: Centroids | GeneGraph | Golden | HeldOutAnswers | Rejection) -> bytes:
    """Return the fields of a part of a bundle as an `.npz` file; the same arrays give the same bytes."""
    # np.savez stamps the time of day, and deflate's output depends on the zlib at hand: neither is used.
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for item in dataclasses.fields(arrays):
            member = zipfile.ZipInfo(f"{item.name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            with archive.open(member, "w") as file:
                array = np.ascontiguousarray(getattr(arrays, item.name))
                np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def from_npz(data: bytes, kind: type[_Arrays], file: str) -> _Arrays:
    """Read a part of a bundle from the bytes of its `file`.

    Raises
    ------
    BundleIntegrityError
        They are no `.npz` file without pickles, or it does not hold the arrays of `kind`.
    """
    return kind(**_load(data, {item.name for item in dataclasses.fields(kind)}, file))


def read_rejection(data: bytes, file: str, unknown: dict[str, int], n_genes: int) -> Rejection:
    """Read `rejection.npz`; signs that are unknown to an older one get no weight.

    Parameters
    ----------
    data, file
        As for `from_npz`.
    unknown
        Names of these signs, and their columns, rising.
    n_genes
        Of the model.

    Raises
    ------
    BundleIntegrityError
        As of `from_npz`.
    """
    absent = {"rarity", "overlap"} if "rarity" in unknown else set()
    absent |= {"weights"} if "doubt" in unknown else set()
    arrays = _load(data, {item.name for item in dataclasses.fields(Rejection)} - absent, file)
    arrays.setdefault("weights", np.ones_like(arrays["median"]))
    for column in unknown.values():
        for name, value in (("median", 0), ("spread", 1), ("weights", 0)):
            arrays[name] = np.insert(arrays[name], column, value, axis=-1)
    if "overlap" in absent:
        arrays |= {name: arrays[name][None] for name in ("median", "spread", "limit")}
        arrays["overlap"] = np.ones(1, np.float32)
        arrays["rarity"] = np.zeros((n_genes, len(arrays["embedding_means"])), np.uint8)
    return Rejection(**arrays)


def _load(data: bytes, expected: set[str], file: str) -> dict[str, Any]:
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            found = sorted(archive.files)
            arrays: dict[str, Any] = {name: archive[name] for name in found}
    except (ValueError, OSError, zipfile.BadZipFile, EOFError) as error:
        msg = f"{file}: cannot be read as numpy arrays ({error}). {GET_AGAIN}"
        raise BundleIntegrityError(msg) from error
    if found != sorted(expected):
        msg = f"{file}: holds the arrays {found}, expected {sorted(expected)}. {GET_AGAIN}"
        raise BundleIntegrityError(msg)
    return arrays
