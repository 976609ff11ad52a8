"""Answers as a table: CSV, TSV (plain or gzipped), Parquet, or TSV on standard output.

First column the cell's name ('cell'), then the same columns as in `obs`. The bytes depend on the answers alone: not on
the block size, the clock or the machine.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import math
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.atomic import HiddenFile, output_errors
from scrcl_infer.columns import TextColumn
from scrcl_infer.result import AssignedBlock
from scrcl_infer.target import Labels, Target, encode, find_ending

if TYPE_CHECKING:
    from scrcl_infer.h5ad import Source

CELL = "cell"
"""Header of the first column."""
ROW_GROUP = 65_536
"""Rows of a Parquet row group, whatever the block size."""


class TextSink:
    """CSV or TSV: UTF-8, lines end in a line feed, numbers with six decimals, nothing where there is no number.

    Parameters
    ----------
    target
        Where to write; its ending gives the separator and the compression.
    source
        The query, for the names of its cells.
    labels
        Names of populations and types.
    out
        The file to write and then to put in the target's place, or a stream, which gets a TSV.
    """

    def __init__(self, target: Target, source: Source, labels: Labels, *, out: HiddenFile | TextIO) -> None:
        self.warnings: tuple[str, ...] = ()
        self.path = target.path
        self.hidden = out if isinstance(out, HiddenFile) else None
        self.labels = labels
        self.names = source.obs_names()
        self.open_files = ExitStack()
        self.stream = self._open(out) if isinstance(out, HiddenFile) else out
        comma = self.hidden is not None and ".csv" in find_ending(target.path)
        self.rows = csv.writer(self.stream, delimiter="," if comma else "\t", lineterminator="\n")
        with output_errors(self.path):
            self.rows.writerow([CELL, *target.columns, *(column.key for column in labels.further)])

    def write(self, block: AssignedBlock) -> None:
        """Append the answers of the next cells."""
        columns = [
            [_number(value) for value in column] if column and isinstance(column[0], float) else column
            for column in _columns(block, self.names, self.labels)
        ]
        with output_errors(self.path):
            self.rows.writerows(zip(*columns, strict=True))

    def finish(self, about: Mapping[str, object]) -> None:
        """Complete the table; it has no place for `about`."""
        del about
        with output_errors(self.path):
            self.stream.flush()
            self.open_files.close()
        if self.hidden is not None:
            self.hidden.commit()

    def close(self) -> None:
        """Let go of open files."""
        _close_quietly(self.open_files)

    def _open(self, hidden: HiddenFile) -> TextIO:
        with output_errors(self.path):
            raw = self.open_files.enter_context(hidden.path.open("wb"))
            if not self.path.name.lower().endswith(".gz"):
                return self.open_files.enter_context(io.TextIOWrapper(raw, encoding="utf-8", newline=""))
            # Neither name nor time in the header: the same answers are the same bytes.
            zipped = self.open_files.enter_context(gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0))
            return self.open_files.enter_context(io.TextIOWrapper(zipped, encoding="utf-8", newline=""))


class ParquetSink:
    """Parquet with text and float32 columns, in row groups of a fixed length.

    Parameters
    ----------
    target, source, labels
        See `TextSink`.
    hidden
        The file to write and then to put in the target's place.
    """

    def __init__(self, target: Target, source: Source, labels: Labels, *, hidden: HiddenFile) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self.warnings: tuple[str, ...] = ()
        self.path = target.path
        self.hidden = hidden
        self.labels = labels
        self.names = source.obs_names()
        self.open_files = ExitStack()
        kinds = [pa.string(), pa.string(), pa.string(), pa.float32(), pa.float32()]
        kinds += [pa.string() if isinstance(column, TextColumn) else pa.float32() for column in labels.further]
        self.pending: list[list[Any]] = [[] for _ in kinds]
        names = [CELL, *target.columns, *(column.key for column in labels.further)]
        self.schema = pa.schema(list(zip(names, kinds, strict=True)))
        with output_errors(self.path):
            self.writer = self.open_files.enter_context(parquet.ParquetWriter(hidden.path, self.schema))

    def write(self, block: AssignedBlock) -> None:
        """Append the answers of the next cells."""
        for pending, values in zip(self.pending, _columns(block, self.names, self.labels), strict=True):
            pending.extend(values)
        while len(self.pending[0]) >= ROW_GROUP:
            self._write_group()

    def finish(self, about: Mapping[str, object]) -> None:
        """Complete the table; it has no place for `about`."""
        del about
        if self.pending[0]:
            self._write_group()
        with output_errors(self.path):
            self.open_files.close()
        self.hidden.commit()

    def close(self) -> None:
        """Let go of open files."""
        _close_quietly(self.open_files)

    def _write_group(self) -> None:
        import pyarrow as pa

        group = [pa.array(p[:ROW_GROUP], type=field.type) for p, field in zip(self.pending, self.schema, strict=True)]
        for pending in self.pending:
            del pending[:ROW_GROUP]
        with output_errors(self.path):
            self.writer.write_table(pa.table(group, schema=self.schema), row_group_size=ROW_GROUP)


def _columns(block: AssignedBlock, names: NDArray[np.object_], labels: Labels) -> list[list[Any]]:
    """Cell, type, population, confidence and margin of the block's cells, and the further columns."""
    cells: list[str] = names[block.start : block.start + len(block.cell_type)].tolist()
    types = [labels.cell_types[i] for i in encode(block.cell_type, labels.cell_types)]
    populations = [labels.populations[i] for i in encode(block.population, labels.populations)]
    further = [column.values(block) for column in labels.further]
    return [cells, types, populations, block.confidence.tolist(), block.margin.tolist(), *further]


def _number(value: float) -> str:
    # Tools agree on what an empty field is, and not on the spelling of NaN.
    return "" if math.isnan(value) else f"{value:.6f}"


def _close_quietly(files: ExitStack) -> None:
    """Close without an error of its own: flushing into a full disk must not hide the error that led here."""
    with contextlib.suppress(OSError, ValueError):
        files.close()
