"""What a method of a benchmark is: a function from cells (never labels) to clusters, under a version."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Literal

from numpy.typing import NDArray

from benchmarks.environments import Environment

NumberOfClusters = Literal["given", "estimated"]
Kind = NumberOfClusters | Literal["thinned"]
"""Which of the table's grids a column stands in."""


@dataclass(frozen=True)
class Column:
    """One column of the table."""

    key: str
    title: str
    k: Kind
    """In clustering, whether the method was told the number of types; else 'given', or what the query was made."""
    note: str = ""
    """Printed under the table, e.g. that labels were used."""
    is_ours: bool = False
    uses_labels: bool = False
    """Never printed as the best."""


@dataclass(frozen=True)
class Outcome:
    """What one call of a method gives."""

    clusters: Mapping[str, NDArray[Any]]
    """Column key -> (n,) cluster of each cell."""
    epochs: Mapping[str, Mapping[int, NDArray[Any]]] = field(default_factory=dict)
    """Column key -> epoch -> (n,) clusters, for columns whose epoch is chosen by the labels (by the harness)."""


@dataclass(frozen=True)
class Method:
    """One method: prepared once per data set, called once per seed, in one process."""

    name: str
    columns: tuple[Column, ...]
    prepare: Callable[[Any], Any]
    """Work on the cells (`datasets.Cells` or `pairs.Transfer`) that no seed changes; timed, kept for the next seed."""
    run: Callable[[Any, Any, int], Outcome]
    """(prepared, cells, seed) -> outcome."""
    version: str = "1"
    """To be raised with every change that may change the answer."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The constants behind the answer; part of the cache key and of the JSON."""
    packages: tuple[str, ...] = ()
    """Distributions whose versions go into the cache key and the table's head."""
    needs: tuple[str, ...] = ()
    """Modules without which the column says 'not installed'."""

    environment: Environment | None = None
    """Where the method runs, if not here; made before the first call."""
    suits: Callable[[Any], bool] = lambda _: True
    """Tells whether the method is run on a set or pair."""

    def missing(self) -> tuple[str, ...]:
        """Return the modules, or the environment's packages, that are needed and not installed."""
        absent = tuple(name for name in self.needs if importlib.util.find_spec(name) is None)
        if self.environment is not None and not self.environment.is_ready():
            absent += self.environment.requirements
        return absent

    def cache_key(self) -> dict[str, Any]:
        """Return what, besides data set and seed, decides the answer."""
        return {"version": self.version, "settings": dict(self.settings), "packages": versions_of(self.packages)}


def versions_of(packages: tuple[str, ...]) -> dict[str, str]:
    """Return the installed version of each distribution, or 'not installed'."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
