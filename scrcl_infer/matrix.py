"""Which matrix of an input holds the counts, and how to get counts back from a logged one.

A few hundred cells from the beginning, the middle and the end of the file are looked at. What is decided is said in
one sentence, and what cannot be decided is refused with what was found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.blocks import RowBlock
from scrcl_infer.errors import MatrixError
from scrcl_infer.result import InputState, MatrixReport
from scrcl_infer.source import Source

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

N_WINDOWS = 5
WINDOW_ROWS = 100
"""Cells looked at: five runs of this many, evenly spaced over the file."""
SUM_TOLERANCE = 0.01
"""Relative spread of `expm1` sums within which they count as equal."""
LOG_MAXIMUM = 16.0
"""No log1p of counts is larger: expm1(16) is 9 million."""
LOG2_MAXIMUM = 25.0
"""Nor log2: 2 to the 25th is 34 million."""
LOG_SPREAD = 8.0
"""The largest of logarithms is at most so many times their median; counts, and what is left of them once a background
was taken off, have longer tails."""
LEAST_TOP, MOSTLY_FRACTIONS = 4.0, 0.1
"""Logarithms of any expression reach the first; fewer of them than the second are whole."""
COUNTS_MAXIMUM = 50.0
"""Fractions reach this only where they are no logarithms."""
TARGET_SUM = 10_000.0
PART_OF_GENES = "only a part of the genes is there"
OF_UNKNOWN_SCALE = "logarithms of unknown base and total, by their spread"
PREFERRED = ("X", "layers/counts", "layers/raw_counts", "layers/raw", "layers/umi")

Verdict = Literal["counts", "empty", "binary", "log", "loglike", "fractions", "unclear", "bad"]


@dataclass(frozen=True)
class Look:
    """What a sample of one matrix holds."""

    where: str
    verdict: Verdict
    mean_sum: float
    """Mean total per cell of the stored values."""
    target_sum: float | None
    """Of a logged matrix: what the cells were scaled to."""
    found: str
    """In words: range, share of whole numbers, sums, and where the first offending value is."""


def choose_matrix(source: Source, *, layer: str | None = None, state: InputState = "auto") -> MatrixReport:
    """Find the counts, or a logged matrix that counts can be had from.

    Parameters
    ----------
    source
        The input.
    layer
        'X', 'raw', or the name of a layer: only this one is considered. None considers all.
    state
        'counts' and 'log1p10k' are taken at their word, as far as the values allow it; 'auto' looks.

    Returns
    -------
    Where the values are, what they are, and why. Without a layer the order is: `X`, `layers['counts']`, the layers and
    `raw` by counts per cell, whichever first holds whole numbers; else the first that is log1p of scaled counts; else
    the first with fractions too large for logarithms; else the first that looks like logarithms of any kind; else one
    without any value, whose cells may all be empty.

    Raises
    ------
    MatrixError
        Nothing fits; the text says what each matrix holds and what to do.
    InputError
        There is no such layer, or no matrix at all.
    """
    names = source.matrices() if layer is None else (resolve_layer(source, layer),)
    if not names:
        msg = f"{source.path or 'The AnnData'} holds no matrix. Expected counts in X, a layer or raw."
        raise MatrixError(msg)
    looks: list[Look] = []
    for name in sorted(names, key=lambda name: PREFERRED.index(name) if name in PREFERRED else len(PREFERRED)):
        looks.append(look_at(source, name))
        # The usual case: no need to look at the others.
        if state != "log1p10k" and looks[-1].verdict == "counts" and name in PREFERRED:
            break
    chosen = _choose(looks, state)
    if chosen is None:
        listed = "\n".join(f"  {look.where}: {look.found}" for look in looks)
        asked = "log1p of counts per 10,000" if state == "log1p10k" else "counts"
        msg = f"No matrix holds {asked}. Looked at:\n{listed}\n{_advise(looks, state)}"
        raise MatrixError(msg)
    return chosen


def resolve_layer(source: Source, layer: str) -> str:
    """Return 'X', 'raw/X' or 'layers/NAME' for what a user wrote.

    Raises
    ------
    MatrixError
        There is no such matrix; the text names those there are.
    """
    there = source.matrices()
    for name in (f"layers/{layer}", "raw/X" if layer == "raw" else layer):
        if name in there:
            return name
    msg = f"There is no layer {layer!r}. Matrices in the input: {', '.join(there) or 'none'} (use 'raw' for raw/X)."
    raise MatrixError(msg)


def look_at(source: Source, where: str) -> Look:
    """Look at a sample of one matrix; nothing is refused here."""
    handle = source.matrix(where)
    n_cells = handle.shape[0]
    rows = min(WINDOW_ROWS, n_cells)
    starts = sorted({int(start) for start in np.linspace(0, n_cells - rows, N_WINDOWS)} if n_cells else set())
    samples = [(start, handle.read_rows(start, start + rows)) for start in starts]
    values = np.concatenate([sample.data for _, sample in samples] or [np.zeros(0, np.float32)])
    for start, sample in samples:
        bad = np.flatnonzero(~((sample.data >= 0) & (sample.data < np.inf)))
        if len(bad):
            row = int(np.searchsorted(sample.indptr, bad[0], side="right")) - 1
            cell = source.obs_names()[start + row]
            gene = source.var_names(where)[sample.indices[bad[0]]]
            finite = values[np.isfinite(values)]
            spread = f"finite values from {finite.min():g} to {finite.max():g}" if finite.size else "no finite value"
            found = f"{sample.data[bad[0]]:g} for cell {cell!r} (row {start + row}) and gene {gene!r}; {spread}"
            return Look(where, "bad", 0.0, None, found)
    return _judge(where, values, [_row_values(sample.data, sample.indptr) for _, sample in samples])


@overload
def to_counts(block: RowBlock, report: MatrixReport) -> RowBlock: ...


@overload
def to_counts(block: csr_matrix, report: MatrixReport) -> csr_matrix: ...


def to_counts(block: RowBlock | csr_matrix, report: MatrixReport) -> RowBlock | csr_matrix:
    """Return a block of counts and library sizes, whatever was stored.

    A logged matrix gives `expm1` of its values with the total they were scaled to as library size (0 for empty cells).

    Parameters
    ----------
    block
        From `iter_csr_blocks`, or from `iter_blocks`; where several columns were summed, that has to be read with
        `log1p=True`: a sum of logarithms cannot be taken back.
    report
        From `choose_matrix`.
    """
    if report.state == "counts":
        return block
    if not isinstance(block, RowBlock):
        return block.expm1()
    counts = block.counts if block.inverted else np.expm1(block.counts)
    total = np.float32(report.target_sum or TARGET_SUM)
    library = np.where(block.library_size > 0, total, np.float32(0)).astype(np.float32)
    return replace(block, counts=counts, library_size=library, inverted=True)


def _row_values(data: NDArray[np.float32], indptr: NDArray[np.int32]) -> list[NDArray[np.float32]]:
    return [data[low:high] for low, high in pairwise(indptr.tolist())]


def _judge(where: str, values: NDArray[np.float32], windows: list[list[NDArray[np.float32]]]) -> Look:
    """Tell counts from logarithms in finite, non-negative values."""
    rows = [row[row > 0].astype(np.float64) for window in windows for row in window]
    rows = [row for row in rows if len(row)]
    if not rows:
        return Look(where, "empty", 0.0, None, "no value above 0 in the cells looked at")
    whole = float(np.mean(values == np.rint(values)))
    top = float(values.max())
    sums = np.array([row.sum() for row in rows])
    found = (
        f"values from {values.min():g} to {top:g}, {100 * whole:.3g} % whole numbers, "
        f"sums per cell {sums.min():g} to {sums.max():g}"
    )
    if whole == 1.0:
        return Look(where, "counts" if top > 1 else "binary", float(sums.mean()), None, found)
    if top < LOG_MAXIMUM:
        totals = np.array([np.expm1(row).sum() for row in rows])
        found += f", sums of expm1 {totals.min():g} to {totals.max():g}"
        middle = float(np.median(totals))
        # Cells of one or two genes have the same total for no reason: a signature needs several full ones.
        if len(totals) > 1 and np.abs(totals / middle - 1).max() <= SUM_TOLERANCE:
            target = TARGET_SUM if abs(middle / TARGET_SUM - 1) <= SUM_TOLERANCE else middle
            return Look(where, "log", float(sums.mean()), target, found)
        if totals.max() <= TARGET_SUM * (1 + SUM_TOLERANCE) and _scaled_counts(rows):
            return Look(where, "log", float(sums.mean()), TARGET_SUM, f"{found} ({PART_OF_GENES})")
    if LEAST_TOP < top < LOG2_MAXIMUM and whole < MOSTLY_FRACTIONS and top < LOG_SPREAD * np.median(values[values > 0]):
        return Look(where, "loglike", float(sums.mean()), TARGET_SUM, f"{found} ({OF_UNKNOWN_SCALE})")
    return Look(where, "fractions" if top > COUNTS_MAXIMUM else "unclear", float(sums.mean()), None, found)


def _scaled_counts(rows: list[NDArray[np.float64]]) -> bool:
    """Whether each cell's `expm1` values are whole multiples of its smallest: log1p of scaled counts, genes missing."""
    good = looked = 0
    for row in rows:
        linear = np.expm1(row)
        ratios = linear / linear.min()
        ratios = ratios[ratios < COUNTS_MAXIMUM]
        if (ratios > 1.5).sum() < 3:
            continue
        looked += 1
        good += bool(np.mean(np.abs(ratios - np.rint(ratios)) < 0.02) > 0.95)
    return looked >= 3 and good >= 0.8 * looked


def _advise(looks: list[Look], state: InputState) -> str:
    """Say what was expected and what to do, where no matrix fits."""
    if all(look.verdict == "bad" for look in looks):
        # No word on what the values are meant to be makes counts of these.
        return (
            "Expected counts or their log1p, which are finite and never negative. Negative values are what centring, "
            "scaling or batch correction leave: store the counts from before it in X, or in a layer and name it with "
            "--layer. Values that are no number: remove them, or their cells or genes."
        )
    way_out = (
        "say what the values are with --input-state counts|log1p10k."
        if state == "auto"
        else f"leave out --input-state {state}, which contradicts the values."
    )
    return (
        "Expected whole numbers, or log1p of counts scaled to one total per cell. Store raw counts in X or a layer "
        f"and name it with --layer; or {way_out}"
    )


def _choose(looks: list[Look], state: InputState) -> MatrixReport | None:
    """Pick a matrix by what was asked for and found."""
    by = {
        verdict: [look for look in looks if look.verdict == verdict]
        for verdict in ("counts", "log", "fractions", "loglike", "empty")
    }
    others = [look for look in looks if look.verdict in ("binary", "unclear", "loglike")]
    if state == "log1p10k":
        logged = by["log"] or [look for look in others if look.verdict in ("unclear", "loglike")]
        if not logged:
            return None
        look = logged[0]
        target = look.target_sum or TARGET_SUM
        reason = f"{look.where} is read as log1p of counts scaled to {target:g} per cell, as --input-state says."
        return MatrixReport(look.where, "log1p10k", reason, target)
    if by["counts"]:
        preferred = [look for look in by["counts"] if look.where in PREFERRED]
        # Velocity files keep counts in parts: the layer with most of them is the whole.
        look = preferred[0] if preferred else max(by["counts"], key=lambda look: look.mean_sum)
        return MatrixReport(look.where, "counts", f"{look.where} holds non-negative whole numbers.")
    logged = by["log"] or ([] if by["fractions"] else by["loglike"])
    if logged and state == "auto":
        return _take_back(logged[0])
    for look in by["fractions"] or others or by["empty"]:
        if look.verdict in ("unclear", "loglike") and state != "counts":
            continue
        said = ", as --input-state says" if state == "counts" else ": check that they are not logged"
        if look.verdict == "empty":
            said = ""
        if look.verdict == "binary":
            said = ": only 0 and 1, answers will be poor"
        return MatrixReport(look.where, "counts", f"Taking {look.where} as counts ({look.found}){said}.")
    return None


def _take_back(look: Look) -> MatrixReport:
    """Read a matrix of logarithms, where no other holds counts."""
    target = look.target_sum or TARGET_SUM
    if look.verdict == "loglike":
        said = (
            f"{look.where} holds {OF_UNKNOWN_SCALE}: taken as they are, as if log1p of counts scaled to {target:g} per "
            "cell. If they are no logarithms, say --input-state counts."
        )
    else:
        assumed = f" ({PART_OF_GENES}: the total is assumed)" if PART_OF_GENES in look.found else ""
        said = f"{look.where} is log1p of counts scaled to {target:g} per cell{assumed}: taken back by expm1."
    return MatrixReport(look.where, "log1p10k", f"No matrix holds whole numbers; {said}", target)
