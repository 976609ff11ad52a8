"""What one matrix of an input holds: counts, logarithms of which base and total, fractions, or nothing.

A few hundred cells from the beginning, the middle and the end of the file are looked at, at their genes alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.genes import find_other_features
from scrcl_infer.multiples import Units, find_units
from scrcl_infer.result import Totals
from scrcl_infer.source import Source

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

N_WINDOWS = 5
WINDOW_ROWS = 100
"""Cells looked at: five runs of this many, evenly spaced over the file."""
SUM_TOLERANCE = 0.01
"""Relative spread of `expm1` sums within which they count as equal."""
BASES = {math.e: "log1p", 2.0: "log2(1 + x)", 10.0: "log10(1 + x)"}
"""Logarithms that are told from each other, and their names; the natural one goes first."""
LOG_MAXIMUM = 16.0
"""No log1p of counts is larger: expm1(16) is 9 million."""
LOG2_MAXIMUM = 25.0
"""Nor log2: 2 to the 25th is 34 million."""
LOG_SPREAD = 8.0
"""The largest of logarithms is at most so many times their median; counts, and what is left of them once a background
was taken off, have longer tails."""
LEAST_TOP, MOSTLY_FRACTIONS = 4.0, 0.1
"""Logarithms of any expression reach the first; fewer of them than the second are whole."""
MOSTLY_WHOLE = 0.95
"""Of logarithms to base 2 or 10 of counts many are whole, but not so many."""
COUNTS_MAXIMUM = 50.0
"""Fractions reach this only where they are no logarithms."""
TARGET_SUM, PER_MILLION = 10_000.0, 1_000_000.0
"""What cells are usually scaled to; of a part of the genes the first that is not exceeded is taken to be meant."""
PART_OF_GENES = "only a part of the genes is there"
OWN_TOTALS = "each cell has a total of its own"
WHOLE_GENES = 6000
"""So many genes are no panel and no choice of variable ones: cells have all their counts in them."""
ONE_COUNT = 1e-3
"""How far a cell's smallest value may be from 1 where it is one count."""
OF_UNKNOWN_SCALE = "logarithms of unknown base and total, by their spread"
Verdict = Literal["counts", "empty", "binary", "log", "loglike", "fractions", "unclear", "bad"]


@dataclass(frozen=True)
class Look:
    """What a sample of one matrix holds."""

    where: str
    verdict: Verdict
    mean_sum: float
    """Mean total per cell of the stored values."""
    target_sum: float | None
    """Of a logged matrix: what the cells were scaled to; None where each has a total of its own."""
    log_base: float
    """Of a logged matrix."""
    mean_detected: float
    """Mean number of genes per cell that are above 0."""
    found: str
    """In words: range, share of whole numbers, sums, and where the first offending value is."""
    totals: Totals = "summed"


def look_at(source: Source, where: str) -> Look:
    """Look at a sample of one matrix, at its genes alone; nothing is refused here."""
    samples, genes = read_samples(source, where), np.flatnonzero(~find_other_features(source, where))
    if len(genes) < source.matrix(where).shape[1]:
        samples = [(start, sample[:, genes]) for start, sample in samples]
    values = np.concatenate([sample.data for _, sample in samples] or [np.zeros(0, np.float32)])
    for start, sample in samples:
        bad = np.flatnonzero(~((sample.data >= 0) & (sample.data < np.inf)))
        if len(bad):
            row = int(np.searchsorted(sample.indptr, bad[0], side="right")) - 1
            cell = source.obs_names()[start + row]
            gene = source.var_names(where)[genes[sample.indices[bad[0]]]]
            finite = values[np.isfinite(values)]
            spread = f"finite values from {finite.min():g} to {finite.max():g}" if finite.size else "no finite value"
            found = f"{sample.data[bad[0]]:g} for cell {cell!r} (row {start + row}) and gene {gene!r}; {spread}"
            return Look(where, "bad", 0.0, None, math.e, 0.0, found)
    windows = [_row_values(sample.data, sample.indptr) for _, sample in samples]
    return _judge(where, values, windows, n_genes=len(genes))


def read_samples(source: Source, where: str) -> list[tuple[int, csr_matrix]]:
    """Return a few runs of rows of a matrix, (rows, n_genes) float32 each, and the first row of each."""
    handle = source.matrix(where)
    n_cells = handle.shape[0]
    rows = min(WINDOW_ROWS, n_cells)
    starts = sorted({int(start) for start in np.linspace(0, n_cells - rows, N_WINDOWS)} if n_cells else set())
    return [(start, handle.read_rows(start, start + rows)) for start in starts]


def _row_values(data: NDArray[np.float32], indptr: NDArray[np.int32]) -> list[NDArray[np.float32]]:
    return [data[low:high] for low, high in pairwise(indptr.tolist())]


def _judge(where: str, values: NDArray[np.float32], windows: list[list[NDArray[np.float32]]], *, n_genes: int) -> Look:
    """Tell counts from logarithms in finite, non-negative values."""
    rows = [row[row > 0].astype(np.float64) for window in windows for row in window]
    rows = [row for row in rows if len(row)]
    if not rows:
        return Look(where, "empty", 0.0, None, math.e, 0.0, "no value above 0 in the cells looked at")
    whole = float(np.mean(values == np.rint(values)))
    top = float(values.max())
    sums = np.array([row.sum() for row in rows])
    found = (
        f"values from {values.min():g} to {top:g}, {100 * whole:.3g} % whole numbers, "
        f"sums per cell {sums.min():g} to {sums.max():g}"
    )
    look = Look(where, "unclear", float(sums.mean()), None, math.e, float(np.mean([len(row) for row in rows])), found)
    if whole == 1.0:
        return replace(look, verdict="counts" if top > 1 else "binary")
    if top < LOG_MAXIMUM:
        totals = _take_back(rows, math.e)
        found += f", sums of expm1 {totals.min():g} to {totals.max():g}"
    if whole < MOSTLY_WHOLE and (logs := _find_base(rows, top, n_genes)) is not None:
        base, target, origin = logs
        said = {"assumed": f" ({PART_OF_GENES})", "summed": "" if target else f" ({OWN_TOTALS})"}[origin]
        return replace(look, verdict="log", target_sum=target, log_base=base, found=found + said, totals=origin)
    if LEAST_TOP < top < LOG2_MAXIMUM and whole < MOSTLY_FRACTIONS and top < LOG_SPREAD * np.median(values[values > 0]):
        said = f"{found} ({OF_UNKNOWN_SCALE})"
        fits = _take_back(rows, math.e).max() <= TARGET_SUM * (1 + SUM_TOLERANCE)
        base, target = (math.e, TARGET_SUM) if fits else (2.0, PER_MILLION)
        return replace(look, verdict="loglike", target_sum=target, log_base=base, found=said, totals="guessed")
    return replace(look, verdict="fractions" if top > COUNTS_MAXIMUM else "unclear", found=found)


def _find_base(
    rows: list[NDArray[np.float64]], top: float, n_genes: int
) -> tuple[float, float | None, Literal["summed", "assumed"]] | None:
    """Return base, total (None: of its own in each cell) and what the total rests on; None where nothing shows it.

    Taken back, the values of all genes come to one total in each cell, or are counts. Those of a part of the genes, or
    of cells that were scaled by factors of their own, are whole multiples.
    """
    taken_back = {base: _take_back(rows, base) for base in BASES if top * math.log(base) < LOG_MAXIMUM}
    for base, totals in taken_back.items():
        middle = float(np.median(totals))
        # Cells of one or two genes have the same total for no reason: a signature needs several full ones.
        if len(totals) > 1 and np.abs(totals / middle - 1).max() <= SUM_TOLERANCE:
            usual = [t for t in (TARGET_SUM, PER_MILLION) if abs(middle / t - 1) <= SUM_TOLERANCE]
            return base, (usual or [middle])[0], "summed"
    for base, totals in taken_back.items():
        units = _find_units(rows, base)
        if not units.are_counts:
            continue
        if np.median(np.abs(units.unit - 1)) < ONE_COUNT:
            return base, None, "summed"
        usual = [total for total in (TARGET_SUM, PER_MILLION) if totals.max() <= total * (1 + SUM_TOLERANCE)]
        # Of so many genes cells keep most of their counts: a total that is far from all sums is not theirs.
        if n_genes >= WHOLE_GENES and not (usual and np.median(totals) >= usual[0] / 2):
            return base, None, "summed"
        if usual:
            return base, usual[0], "assumed"
    return None


def _take_back(rows: list[NDArray[np.float64]], base: float) -> NDArray[np.float64]:
    """Return what the cells of logarithms come to, (n,)."""
    return np.array([np.expm1(row * math.log(base)).sum() for row in rows])


def _find_units(rows: list[NDArray[np.float64]], base: float) -> Units:
    """Look whether each cell's values, taken back, are whole multiples of its smallest: those of scaled counts are."""
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return find_units(np.expm1(np.concatenate(rows) * math.log(base)), indptr)
