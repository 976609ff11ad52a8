"""A resumable cache of method calls: one small JSON file per method, data set, seed and settings.

Finished calls of published tables are kept in `benchmarks/results/calls`, one line each, so that a fresh clone goes on
from them: a call is filed under everything that decides its answer, and one of other code or settings is not found.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

CACHE_FOLDER = Path(__file__).parent / ".cache"
"""Ignored by git; may be deleted at any time."""
CALLS_FOLDER = Path(__file__).parent / "results" / "calls"


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

    def __init__(self, folder: Path = CACHE_FOLDER, published: Path = CALLS_FOLDER) -> None:
        self.folder = folder
        self.published = published

    @cached_property
    def _published_calls(self) -> dict[str, dict[str, Any]]:
        found = {}
        for path in sorted(self.published.glob("*.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines():
                stored = json.loads(line)
                found[stored["call"]] = stored["result"]
        return found

    def get(self, call: Call) -> dict[str, Any] | None:
        """Return the result of a call, or None where it has not been made."""
        path = self.folder / call.path
        if not path.is_file():
            return self._published_calls.get(call.path.as_posix())
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

    def publish(self, benchmark: str, calls: Sequence[Call]) -> Path:
        """Keep finished calls in the published file of a benchmark; earlier ones of the same name make way."""
        path = self.published / f"{benchmark}.jsonl"
        fresh = {call.path.as_posix(): self.get(call) for call in calls}
        fresh = {name: result for name, result in fresh.items() if result is not None}
        replaced = {_name(name) for name in fresh}
        old = {
            name: result
            for name, result in self._published_calls.items()
            if name.startswith(f"{benchmark}/") and _name(name) not in replaced
        }
        lines = [json.dumps({"call": name, "result": result}) for name, result in sorted((old | fresh).items())]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path


def _name(call: str) -> str:
    """Return the method, data set and seed of a call's path, without the digest of what decides its answer."""
    return call.rpartition("-")[0]
