"""How sure is sure: temperature and threshold, fitted to what held-out training cells were answered.

Done at training, and again where types are put together from populations, which makes the populations' temperature that
of nothing any more. See `docs/decisions/0003-calibration.md`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.assign import add_populations, apply_temperature
from scrcl_infer.contract import Calibration
from scrcl_infer.parts import HeldOutAnswers

KEPT_FRACTION = 0.95
"""Share of the held-out cells that is not to be called unknown, at every depth."""
UNSURE_AT_MOST, UNSURE_SHARE = 0.5, 0.01
"""A probability below the threshold makes a cell unknown, however usual it looks. No more than this share of the
held-out cells lies below it, and it never exceeds the first: a type that holds most of the probability counts."""
TEMPERATURES = (1.0, 20.0)
"""Never below 1: where no held-out cell is wrong the best temperature is 0, and new cells are harder than those."""
LEAST_LOG = -700.0
"""Log posterior below which all are one: a type whose populations have nothing of a cell must not cost infinitely."""


def calibrate_types(
    calibration: Calibration,
    held_out: HeldOutAnswers | None,
    before: NDArray[np.integer],
    after: NDArray[np.integer],
) -> Calibration:
    """Return the calibration for types that are put together from populations.

    A held-out cell's type is that of its population.

    Parameters
    ----------
    calibration
        For the types as they were.
    held_out
        What first students answered for cells that they had not learned (K populations); None keeps the calibration.
    before, after
        (K,) index of each population's type. Where the same populations are together, the calibration stays.
    """
    if held_out is None or is_same_grouping(before, after):
        return calibration
    log_posterior = add_populations(held_out.log_posterior, after, int(after.max()) + 1)
    temperature = fit_temperature(np.maximum(log_posterior, LEAST_LOG), after[held_out.population])
    confidence = apply_temperature(log_posterior, temperature).max(axis=1)
    threshold = choose_threshold(confidence, held_out.within)
    right = log_posterior.argmax(axis=1) == after[held_out.population]
    return replace(
        calibration,
        temperature=temperature,
        threshold=threshold,
        kept_fraction=compute_kept(confidence, held_out.within, threshold),
        n_held_out=len(confidence),
        accuracy=float(right.mean()),
    )


def is_same_grouping(one: NDArray[np.integer], other: NDArray[np.integer]) -> bool:
    """Tell whether two groupings (K,) of the same things put the same ones together, whatever the groups' numbers."""
    pairs = set(zip(one.tolist(), other.tolist(), strict=True))
    return len(pairs) == len(set(one.tolist())) == len(set(other.tolist()))


def fit_temperature(log_posterior: NDArray[np.floating], truth: NDArray[np.integer]) -> float:
    r"""Fit the temperature T that minimises the mean negative log likelihood (Guo et al. 2017).

    .. math:: -\frac{1}{m} \sum_i \log \mathrm{softmax}(l_i / T)_{y_i}

    Parameters
    ----------
    log_posterior
        (m, C)
    truth
        (m,) in [0, C).
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    logits = log_posterior.astype(np.float64)
    chosen = logits[np.arange(truth.size), truth]

    def loss(log_t: float) -> float:
        t = math.exp(log_t)
        return float(np.mean(logsumexp(logits / t, axis=1) - chosen / t))

    bounds = (math.log(TEMPERATURES[0]), math.log(TEMPERATURES[1]))
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-4})
    return float(math.exp(found.x))


def choose_threshold(confidence: NDArray[np.floating], within: NDArray[np.bool_]) -> float:
    """Choose the probability below which cells are unknown that are not strange.

    Parameters
    ----------
    confidence
        (m,) calibrated probability of the best type of held-out cells.
    within
        (m,) whether they are within the limit of strangeness.

    Returns
    -------
    float
        At most `UNSURE_AT_MOST`, with at most `UNSURE_SHARE` of the cells below it, and so low that `KEPT_FRACTION` of
        all cells are kept where as many are within the limit.
    """
    kept = np.sort(confidence[within])
    spare = max(0, len(kept) - math.ceil(KEPT_FRACTION * len(confidence)))
    n_below = min(spare, int(UNSURE_SHARE * len(confidence)))
    return float(min(UNSURE_AT_MOST, kept[n_below])) if len(kept) > n_below else 0.0


def compute_kept(confidence: NDArray[np.floating], within: NDArray[np.bool_], threshold: float) -> float:
    """Return the share of the cells, (m,) and (m,) as of `choose_threshold`, that are not unknown."""
    return float(np.mean(within & (confidence >= threshold)))
