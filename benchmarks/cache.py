"""A resumable cache of method calls: one small JSON file per method, data set, seed and settings."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CACHE_FOLDER = Path(__file__).parent / ".cache"
"""Ignored by git; may be deleted at any time."""


@dataclass(frozen=True)
class Call:
    """One call of a method: what it is filed under."""

    benchmark: str
    method: str
    data: str
    seed: int
    key: Mapping[str, Any]
    """The method's version, settings and packages, and the fingerprint of the data."""

    @property
    def path(self) -> Path:
        """File of this call, relative to the cache's folder."""
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()[:12]
        return Path(self.benchmark) / self.method / f"{self.data}-seed{self.seed}-{digest}.json"


class Cache:
    """Results of finished calls; a call of another version or other settings is simply not found."""

    def __init__(self, folder: Path = CACHE_FOLDER) -> None:
        self.folder = folder

    def get(self, call: Call) -> dict[str, Any] | None:
        """Return the result of a call, or None where it has not been made."""
        path = self.folder / call.path
        if not path.is_file():
            return None
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        result: dict[str, Any] = stored["result"]
        return result

    def put(self, call: Call, result: Mapping[str, Any]) -> None:
        """Write the result of a call, at once or not at all: an interrupted run leaves no half file."""
        path = self.folder / call.path
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps({"key": dict(call.key), "result": dict(result)}), encoding="utf-8")
        part.replace(path)
