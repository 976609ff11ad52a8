"""What remains of the blocks that went by: counts for the summary, and the answers themselves where they are kept."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.columns import make_level_column, make_ontology_column
from scrcl_infer.contract import UNKNOWN, Manifest
from scrcl_infer.familiarity import Familiarity, FamiliarityTally, doubt
from scrcl_infer.result import (
    AssignedBlock,
    Assignment,
    GeneReport,
    MatrixReport,
    RejectionReport,
    Sketch,
    Summary,
)
from scrcl_infer.target import Labels, encode
from scrcl_infer.totals import explain_gaps

BINS = 20
"""Bars of the histogram of confidences."""
SKETCHED = 5000
"""Most cells of a sketch."""


class Tally:
    """Counts what blocks hold.

    Parameters
    ----------
    manifest
        Names of populations and types, and what the model expects of a query.
    reject
        Whether cells that the model does not know are unknown.
    strangeness
        Whether blocks come with the cells' strangeness; for bundles with a `Rejection`.
    """

    def __init__(self, manifest: Manifest, *, reject: bool = True, strangeness: bool = False) -> None:
        self.manifest = manifest
        self.reject = reject
        self.measures_strangeness = strangeness
        self.notes: dict[str, object] = {}
        self.histogram = np.zeros(BINS, dtype=np.int64)
        self.places: list[NDArray[np.float32]] = []
        self.place_types: list[NDArray[np.int32]] = []
        self.started = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}
        self.n_cells = 0
        self.n_empty = 0
        self.n_strange = 0  # of the unknown
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
        if block.strangeness is not None:  # NaN, which is not above 0, without counts
            self.n_strange += int(((block.cell_type < 0) & (block.strangeness > 0)).sum())
        self.confidence += float(block.confidence.sum(dtype=np.float64))
        self.familiarity.add(block)
        np.add.at(self.types, block.cell_type, 1)
        np.add.at(self.populations[:, 0], block.population, 1)
        np.add.at(self.populations[:, 1], block.population[block.cell_type < 0], 1)

    def sketch(self, block: AssignedBlock, n_cells: int) -> None:
        """Keep what a picture of the file's `n_cells` cells needs."""
        bins = np.minimum(block.confidence * np.float32(BINS), BINS - 1).astype(np.int64)
        self.histogram += np.bincount(bins, minlength=BINS)
        every = -(-n_cells // SKETCHED)
        rows = slice(-block.start % every, None, every)  # those whose place in the file `every` divides
        self.places.append(block.map[rows].copy())
        self.place_types.append(block.cell_type[rows].copy())

    def note(self, name: str, value: object) -> None:
        """Note what goes into the summary's `extra`."""
        self.notes[name] = value

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
            rejection=self._rejected(n_unknown),
            warnings=(
                *self.warnings,
                *explain_gaps(manifest, genes),
                *self._doubts(found, matrix, genes, n_unknown / max(self.n_cells, 1)),
            ),
            extra={
                "model": {
                    "name": manifest.name,
                    "sha256": model_sha256,
                    "created_by": manifest.created_by,
                    "cell_types": [cell_type.name for cell_type in manifest.cell_types],
                },
                "populations": self._per_population(),
                **self.notes,
                **({"levels": self._per_level()} if manifest.levels else {}),
                "familiarity": found.to_dict(),
            },
            sketch=self._sketched(),
        )

    def _doubts(self, found: Familiarity, matrix: MatrixReport, genes: GeneReport, unknown_share: float) -> list[str]:
        if not self.n_cells:
            return ["The input holds no cells: there was nothing to assign."]
        if self.n_empty == self.n_cells:
            return [
                "No cell has counts in the model's genes, so all are unknown. Check that the matrix read is the one "
                "with the counts, or name another with --layer."
            ]
        mean = self.confidence / (self.n_cells - self.n_empty)
        return doubt(
            found,
            self.manifest,
            genes,
            unknown_share=unknown_share,
            mean_confidence=mean,
            totals_are_known=matrix.target_sum is not None,
        )

    def _rejected(self, n_unknown: int) -> RejectionReport:
        calibration = self.manifest.calibration
        return RejectionReport(
            reject=self.reject,
            rejected_by="strangeness or probability" if self.measures_strangeness else "probability",
            threshold=calibration.threshold,
            temperature=calibration.temperature,
            n_unknown_strange=self.n_strange,
            n_unknown_improbable=n_unknown - self.n_strange - self.n_empty,
            n_unknown_empty=self.n_empty,
        )

    def _sketched(self) -> Sketch | None:
        if not self.places:
            return None
        return Sketch(
            confidence=tuple(self.histogram.tolist()),
            places=np.concatenate(self.places),
            cell_type=np.concatenate(self.place_types),
            types=tuple(t.name for t in self.manifest.cell_types),
        )

    def _per_population(self) -> dict[str, dict[str, int]]:
        return {
            population.name: {"n_cells": n_cells, "n_unknown": n_unknown}
            for population, (n_cells, n_unknown) in zip(
                self.manifest.populations, self.populations[:-1].tolist(), strict=True
            )
            if n_cells
        }

    def _per_level(self) -> dict[str, dict[str, int]]:
        """Cells of each name at each coarser level."""
        found: dict[str, dict[str, int]] = {}
        for level in self.manifest.levels:
            per_name = found.setdefault(level.key, {})
            for name, n in zip((*level.names, UNKNOWN), self.types.tolist(), strict=True):
                if n:
                    per_name[name] = per_name.get(name, 0) + n
        return found


class Collector:
    """Keeps the answers of all cells in memory.

    Parameters
    ----------
    manifest
        Names of populations and types, and the width of the embedding.
    n_cells
        Cells to come.
    strangeness
        Keep the cells' strangeness too; for bundles with a `Rejection`.
    """

    def __init__(self, manifest: Manifest, n_cells: int, *, strangeness: bool = False) -> None:
        self.manifest = manifest
        self.labels = Labels.from_manifest(manifest)
        self.cell_type = np.full(n_cells, -1, dtype=np.int32)
        self.population = np.full(n_cells, -1, dtype=np.int32)
        self.confidence = np.zeros(n_cells, dtype=np.float32)
        self.margin = np.zeros(n_cells, dtype=np.float32)
        self.embedding = np.zeros((n_cells, manifest.encoder.dim), dtype=np.float32)
        self.map = np.zeros((n_cells, 2), dtype=np.float32)
        self.level_confidence = np.zeros((n_cells, len(manifest.levels)), dtype=np.float32)
        self.strangeness: NDArray[np.float32] | None = None
        if strangeness:
            self.strangeness = np.full(n_cells, np.nan, dtype=np.float32)

    def add(self, block: AssignedBlock) -> None:
        """Keep a block."""
        rows = slice(block.start, block.start + len(block.cell_type))
        for name in ("cell_type", "population", "confidence", "margin", "embedding", "map"):
            getattr(self, name)[rows] = getattr(block, name)
        if self.manifest.levels:
            self.level_confidence[rows] = block.level_confidence
        if self.strangeness is not None and block.strangeness is not None:
            self.strangeness[rows] = block.strangeness

    def finish(self, obs_names: NDArray[np.object_], summary: Summary) -> Assignment:
        """Return the answers with names for indices."""
        types = np.array(self.labels.cell_types, dtype=object)
        populations = np.array(self.labels.populations, dtype=object)
        levels = {level.key: make_level_column(level) for level in self.manifest.levels}
        has_ids = any(cell_type.ontology_id for cell_type in self.manifest.cell_types)
        return Assignment(
            obs_names=obs_names,
            cell_type=types[encode(self.cell_type, self.labels.cell_types)],
            population=populations[encode(self.population, self.labels.populations)],
            confidence=self.confidence,
            margin=self.margin,
            embedding=self.embedding,
            map=self.map,
            summary=summary,
            levels={key: column.name(self.cell_type) for key, column in levels.items()},
            level_confidence={key: self.level_confidence[:, i] for i, key in enumerate(levels)},
            ontology_id=make_ontology_column(self.manifest).name(self.cell_type) if has_ids else None,
            strangeness=self.strangeness,
        )
