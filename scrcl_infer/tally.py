"""What remains of the blocks that went by: counts for the summary, and the answers themselves where they are kept."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.contract import UNKNOWN, Manifest
from scrcl_infer.familiarity import FamiliarityTally, doubt
from scrcl_infer.result import AssignedBlock, Assignment, GeneReport, MatrixReport, Summary
from scrcl_infer.target import Labels, encode


class Tally:
    """Counts what blocks hold.

    Parameters
    ----------
    manifest
        Names of populations and types, and what the model expects of a query.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.started = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}
        self.n_cells = 0
        self.n_empty = 0
        self.confidence = 0.0
        # The last place of each counts the unknown, whose index is -1.
        self.types = np.zeros(len(manifest.cell_types) + 1, dtype=np.int64)
        self.populations = np.zeros((len(manifest.populations) + 1, 2), dtype=np.int64)  # all cells, unknown cells
        self.warnings: list[str] = []
        self.familiarity = FamiliarityTally()

    def add(self, block: AssignedBlock) -> None:
        """Count a block."""
        self.n_cells += len(block.cell_type)
        self.n_empty += int((block.population < 0).sum())
        self.confidence += float(block.confidence.sum(dtype=np.float64))
        self.familiarity.add(block)
        np.add.at(self.types, block.cell_type, 1)
        np.add.at(self.populations[:, 0], block.population, 1)
        np.add.at(self.populations[:, 1], block.population[block.cell_type < 0], 1)

    def warn(self, *warnings: str) -> None:
        """Note what the user should know."""
        self.warnings += warnings

    def lap(self, name: str) -> None:
        """Note the seconds since the last lap under a name."""
        now = time.perf_counter()
        self.laps[name] = round(now - self.last, 3)
        self.last = now

    def stamp(self, summary: Summary) -> Summary:
        """Return the summary with the laps and their total, in seconds, as `extra['timings_s']`."""
        timings = {**self.laps, "total": round(self.last - self.started, 3)}
        return replace(summary, extra={**summary.extra, "timings_s": timings})

    def summarise(self, matrix: MatrixReport, genes: GeneReport, *, model_sha256: str) -> Summary:
        """Return the summary.

        Parameters
        ----------
        matrix, genes
            How the query was read.
        model_sha256
            Checksum of the bundle.
        """
        n_unknown = int(self.types[-1])
        manifest, found = self.manifest, self.familiarity.summarise(genes)
        names = (*(t.name for t in manifest.cell_types), UNKNOWN)
        per_type: dict[str, int] = {}
        for name, n in zip(names, self.types.tolist(), strict=True):
            if n:
                per_type[name] = per_type.get(name, 0) + n
        return Summary(
            n_cells=self.n_cells,
            n_unknown=n_unknown,
            n_empty=self.n_empty,
            cells_per_type=per_type,
            mean_confidence=self.confidence / self.n_cells if self.n_cells else 0.0,
            matrix=matrix,
            genes=genes,
            warnings=(*self.warnings, *doubt(found, manifest, genes, unknown_share=n_unknown / max(self.n_cells, 1))),
            extra={
                "model": {"name": manifest.name, "sha256": model_sha256, "created_by": manifest.created_by},
                "populations": self._per_population(),
                "familiarity": found.to_dict(),
            },
        )

    def _per_population(self) -> dict[str, dict[str, int]]:
        return {
            population.name: {"n_cells": n_cells, "n_unknown": n_unknown}
            for population, (n_cells, n_unknown) in zip(
                self.manifest.populations, self.populations[:-1].tolist(), strict=True
            )
            if n_cells
        }


class Collector:
    """Keeps the answers of all cells in memory.

    Parameters
    ----------
    manifest
        Names of populations and types, and the width of the embedding.
    n_cells
        Cells to come.
    """

    def __init__(self, manifest: Manifest, n_cells: int) -> None:
        self.labels = Labels.from_manifest(manifest)
        self.cell_type = np.full(n_cells, -1, dtype=np.int32)
        self.population = np.full(n_cells, -1, dtype=np.int32)
        self.confidence = np.zeros(n_cells, dtype=np.float32)
        self.margin = np.zeros(n_cells, dtype=np.float32)
        self.embedding = np.zeros((n_cells, manifest.encoder.dim), dtype=np.float32)
        self.map = np.zeros((n_cells, 2), dtype=np.float32)

    def add(self, block: AssignedBlock) -> None:
        """Keep a block."""
        rows = slice(block.start, block.start + len(block.cell_type))
        for name in ("cell_type", "population", "confidence", "margin", "embedding", "map"):
            getattr(self, name)[rows] = getattr(block, name)

    def finish(self, obs_names: NDArray[np.object_], summary: Summary) -> Assignment:
        """Return the answers with names for indices."""
        types = np.array(self.labels.cell_types, dtype=object)
        populations = np.array(self.labels.populations, dtype=object)
        return Assignment(
            obs_names=obs_names,
            cell_type=types[encode(self.cell_type, self.labels.cell_types)],
            population=populations[encode(self.population, self.labels.populations)],
            confidence=self.confidence,
            margin=self.margin,
            embedding=self.embedding,
            map=self.map,
            summary=summary,
        )
