"""Which matrix of an input holds the counts, and how to get counts back from a logged one.

A few hundred cells from the beginning, the middle and the end of the file are looked at. What is decided is said in
one sentence, and what cannot be decided is refused with what was found.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, overload

import numpy as np

from scrcl_infer.blocks import RowBlock, take_logs_back
from scrcl_infer.errors import MatrixError
from scrcl_infer.look import BASES, OF_UNKNOWN_SCALE, OWN_TOTALS, PART_OF_GENES, TARGET_SUM, Look, look_at
from scrcl_infer.result import InputState, MatrixReport, Totals
from scrcl_infer.source import Source

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

RAW = "raw/X"
WHOLE = 0.8
"""A matrix whose cells show a smaller share of the genes that they show in `raw` holds only a part of the counts."""
PREFERRED = ("X", "layers/counts", "layers/raw_counts", "layers/raw", "layers/umi")


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
    without any value, whose cells may all be empty. In place of one that was cut down to some of the genes `raw` is
    taken, where it holds counts or their log1p: a cell's total is that of all its genes.

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
        is_whole = RAW not in names or source.matrix(RAW).shape[1] <= source.matrix(name).shape[1]
        if state != "log1p10k" and looks[-1].verdict == "counts" and name in PREFERRED and is_whole:
            break
    chosen = _choose_whole(looks, state)
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
    for name in (f"layers/{layer}", RAW if layer == "raw" else layer):
        if name in there:
            return name
    msg = f"There is no layer {layer!r}. Matrices in the input: {', '.join(there) or 'none'} (use 'raw' for raw/X)."
    raise MatrixError(msg)


@overload
def to_counts(block: RowBlock, report: MatrixReport) -> RowBlock: ...


@overload
def to_counts(block: csr_matrix, report: MatrixReport) -> csr_matrix: ...


def to_counts(block: RowBlock | csr_matrix, report: MatrixReport) -> RowBlock | csr_matrix:
    """Return a block of counts and library sizes, whatever was stored.

    A logged matrix gives its values taken back, with the total they were scaled to as library size (0 for empty cells),
    or, where each cell has its own, what they come to: then a block has to be read with `log_base`.
    None is more than that total, which matters only where base and total had to be guessed: the encoder is sure to
    count right up to there.

    Parameters
    ----------
    block
        From `iter_csr_blocks`, or from `iter_blocks`; where several columns were summed, that has to be read with
        `log_base`: a sum of logarithms cannot be taken back.
    report
        From `choose_matrix`.
    """
    if report.state == "counts":
        return block
    total = np.float32(np.inf if report.target_sum is None else report.target_sum)
    if not isinstance(block, RowBlock):
        rows = block.copy()
        take_logs_back(rows.data, report.log_base)
        np.minimum(rows.data, total, out=rows.data)
        return rows
    counts = block.counts
    if not block.inverted:
        counts = counts.copy()
        take_logs_back(counts, report.log_base)
    if report.target_sum is None:
        return replace(block, counts=counts, inverted=True)
    np.minimum(counts, total, out=counts)
    library = np.where(block.library_size > 0, total, np.float32(0)).astype(np.float32)
    return replace(block, counts=counts, library_size=library, inverted=True)


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


def _choose_whole(looks: list[Look], state: InputState) -> MatrixReport | None:
    """Pick a matrix; `raw` in place of one that holds only a part of its counts."""
    chosen = _choose(looks, state)
    by_name = {look.where: look for look in looks}
    if chosen is None or RAW not in by_name or chosen.where == RAW:
        return chosen
    raw, own = by_name[RAW], by_name[chosen.where]
    is_log = raw.verdict == "log" and raw.totals == "summed"
    if own.mean_detected >= WHOLE * raw.mean_detected or not (is_log or raw.verdict == "counts"):
        return chosen
    whole = _choose([raw], state)
    if whole is None:
        return chosen
    said = (
        f"{RAW} is taken, as {own.where} holds only a part of its genes ({own.mean_detected:.0f} of "
        f"{raw.mean_detected:.0f} that a cell shows), and a cell's total is that of all."
    )
    return replace(whole, reason=f"{said} {whole.reason}")


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
        base, target = math.e, TARGET_SUM
        totals: Totals = "told"
        if look.verdict == "log" and look.target_sum:
            base, target = look.log_base, look.target_sum
            totals = "told" if look.totals == "assumed" else look.totals
        reason = (
            f"{look.where} is read as {BASES[base]} of counts scaled to {target:g} per cell, as --input-state says."
        )
        return MatrixReport(look.where, "log1p10k", reason, target, base, totals)
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
    target, base = look.target_sum, look.log_base
    kind = BASES[base]
    if look.verdict == "loglike":
        said = (
            f"{look.where} holds {OF_UNKNOWN_SCALE}: taken as {kind} of counts scaled to {target:g} per cell. If they "
            "are no logarithms, say --input-state counts."
        )
    else:
        assumed = f" ({PART_OF_GENES}: the total is assumed)" if look.totals == "assumed" else ""
        scaled = f"scaled to {target:g} per cell{assumed}" if target else f"({OWN_TOTALS})"
        said = f"{look.where} is {kind} of counts {scaled}: taken back."
    return MatrixReport(look.where, "log1p10k", f"No matrix holds whole numbers; {said}", target, base, look.totals)
