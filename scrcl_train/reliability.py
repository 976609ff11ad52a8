"""Whether confidences mean what they say: reliability in bins, calibration error, finding novel cells."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from scrcl_infer.errors import InputError

N_BINS = 15
"""Equal-width bins of the calibration error (Guo et al. 2017, 'On Calibration of Modern Neural Networks')."""


@dataclass(frozen=True)
class ReliabilityRow:
    """One confidence bin: (lower, upper], the first one closed on both sides."""

    lower: float
    upper: float
    n_cells: int
    confidence: float
    """Mean confidence in the bin; NaN where it is empty."""
    accuracy: float
    """Share of right answers in the bin; NaN where it is empty."""


def compute_reliability(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = N_BINS
) -> tuple[ReliabilityRow, ...]:
    """Return confidence against accuracy in equal-width bins over [0, 1].

    Parameters
    ----------
    confidence
        (n,) in [0, 1].
    correct
        (n,) whether the answer was right.

    Raises
    ------
    InputError
        A confidence lies outside [0, 1] or is not a number.
    """
    values, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        msg = f"Confidences must lie in [0, 1], found {values.min()} to {values.max()}. Pass probabilities, not logits."
        raise InputError(msg)
    edges = np.linspace(0, 1, n_bins + 1)
    where = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, n_bins - 1)
    rows = []
    for i in range(n_bins):
        inside = where == i
        n = int(inside.sum())
        means = (float(values[inside].mean()), float(right[inside].mean())) if n else (np.nan, np.nan)
        rows.append(ReliabilityRow(float(edges[i]), float(edges[i + 1]), n, *means))
    return tuple(rows)


def compute_calibration_error(confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = N_BINS) -> float:
    r"""Return the expected calibration error.

    .. math:: \sum_b \frac{n_b}{n} \left| \mathrm{accuracy}_b - \mathrm{confidence}_b \right|

    Parameters
    ----------
    confidence
        (n,) in [0, 1], n > 0.
    correct
        (n,) whether the answer was right.
    """
    rows = [row for row in compute_reliability(confidence, correct, n_bins=n_bins) if row.n_cells]
    n = sum(row.n_cells for row in rows)
    return sum(row.n_cells * abs(row.accuracy - row.confidence) for row in rows) / n


def compute_unknown_auroc(is_novel: ArrayLike, score: ArrayLike) -> float | None:
    """Return the area under the ROC curve of finding novel cells by a low score.

    Parameters
    ----------
    is_novel
        (n,) whether the cell's type is unknown to the model.
    score
        (n,) high for cells that the model is sure of.

    Returns
    -------
    The probability that a novel cell scores below a known one (ties count half); None where either kind is absent.
    """
    from sklearn.metrics import roc_auc_score

    novel = np.asarray(is_novel, dtype=bool)
    if novel.all() or not novel.any():
        return None
    return float(roc_auc_score(novel, -np.asarray(score, dtype=np.float64)))
