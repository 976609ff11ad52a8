"""How strange a cell is to the model: its distance from every class of the training cells. Numpy only.

There are three signs: the distances to the nearest class mean in the embedding and in the log posterior, in units of
the spread within classes (Mahalanobis), and the logarithm of the probability that the best type is wrong. Each is
compared with that of held-out training cells of which as many of the model's genes were detected, since a cell of few
counts lies further out whatever it is.

The numbers that are multiplied and added for the distances are first rounded to a grid so coarse that double precision
holds every sum exactly. So the order of additions does not matter, and the fast matrix product may be used: the answer
is the same to the last bit whatever the block, the number of threads, or the library behind numpy.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.contract import Rejection

EXACT_BITS = 53
"""Whole numbers up to 2^53 are exact in double precision."""
INPUT_BITS = 22
"""Of the embedding and the log posterior on their grid: half of a float32's last place."""
LOG_FLOOR = -30.0
"""Log posteriors are raised to this: what is less likely is equally impossible."""
DOUBT_FLOOR = 1e-9
"""Of the probability that the best type is wrong: what is surer is equally sure."""
N_SIGNS = 3
EMBEDDING_REACH = 2.0
"""A power of two that no entry of a unit row exceeds, rounding included."""
POSTERIOR_REACH = 32.0


def compute_strangeness(
    embedding: NDArray[np.float32],
    log_posterior: NDArray[np.float32],
    confidence: NDArray[np.float64],
    n_detected: NDArray[np.int64],
    rejection: Rejection,
) -> NDArray[np.float64]:
    """Return how strange each cell is; above 0 it is unknown.

    Parameters
    ----------
    embedding
        (N, D) unit rows.
    log_posterior
        (N, C) over types where the model has a type head, else over populations; natural log.
    confidence
        (N,) calibrated probability of the best type.
    n_detected
        (N,) number of the model's genes of which the cell has a count.
    rejection
        What held-out training cells gave.

    Returns
    -------
    NDArray
        (N,) the sum of the three signs, each less its median and divided by its spread among held-out cells of as many
        detected genes, less the sum that 95 % of those cells stay below.
    """
    distances = compute_distances(embedding, log_posterior, rejection)
    signs = np.column_stack([distances, compute_doubt(confidence)])
    return add_signs(signs, n_detected, rejection) - expect(rejection.limit, n_detected, rejection)


def compute_distances(
    embedding: NDArray[np.float32], log_posterior: NDArray[np.float32], rejection: Rejection
) -> NDArray[np.float64]:
    """Return the distances to the nearest class mean in the embedding and in the log posterior, (N, 2).

    Parameters are those of `compute_strangeness`.
    """
    floored = np.maximum(log_posterior, np.float32(LOG_FLOOR))
    return np.column_stack(
        [
            _distance(embedding, EMBEDDING_REACH, rejection.embedding_whitening, rejection.embedding_means),
            _distance(floored, POSTERIOR_REACH, rejection.posterior_whitening, rejection.posterior_means),
        ]
    )


def compute_doubt(confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the natural logarithm (N,) of the probability that the best type is wrong; not below `DOUBT_FLOOR`'s."""
    doubt: NDArray[np.float64] = np.log(np.maximum(1 - confidence, DOUBT_FLOOR))
    return doubt


def add_signs(signs: NDArray[np.float64], n_detected: NDArray[np.int64], rejection: Rejection) -> NDArray[np.float64]:
    """Return the sum (N,) of the signs (N, 3), each in units of its spread about the median of held-out cells."""
    total = np.zeros(len(signs))
    for column in range(N_SIGNS):
        median = expect(rejection.median[:, column], n_detected, rejection)
        total += (signs[:, column] - median) / expect(rejection.spread[:, column], n_detected, rejection)
    return total


def expect(values: NDArray[np.float32], n_detected: NDArray[np.int64], rejection: Rejection) -> NDArray[np.float64]:
    """Interpolate a figure (m,) of the knots linearly in the logarithm of the detected genes, (N,); flat outside."""
    n_detected = np.asarray(n_detected, dtype=np.int64)
    # One table for all cells: interpolating cell by cell may round in another way in a block of another size.
    whole = np.arange(1, max(int(n_detected.max(initial=1)), 1) + 1)
    table = np.interp(np.log10(whole), rejection.log_detected.astype(np.float64), values.astype(np.float64))
    found: NDArray[np.float64] = table[np.maximum(n_detected, 1) - 1]
    return found


def _distance(
    values: NDArray[np.float32], reach: float, whitening: NDArray[np.float32], means: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Distance (N,) of the rows `values` (N, D) @ `whitening` (D, D) from the nearest row of `means` (C, D)."""
    n_terms = math.ceil(math.log2(len(whitening))) + 1
    cells, cell_step = _to_grid(values, reach, INPUT_BITS)
    weights, weight_step = _to_grid(whitening, float(np.abs(whitening).max()), EXACT_BITS - INPUT_BITS - n_terms)
    placed = (cells @ weights) * (cell_step * weight_step)  # exact: both steps are powers of two
    furthest = max(float(np.abs(whitening).sum(axis=0).max()) * reach, float(np.abs(means).max()))
    # (y - m)² is at most 4 times the square of the reach, and there are D of them.
    bits = (EXACT_BITS - 2 - n_terms) // 2
    y, step = _to_grid(placed, furthest, bits)
    m, _ = _to_grid(means, furthest, bits)
    squares = (y * y).sum(axis=1)[:, None] - 2 * (y @ m.T) + (m * m).sum(axis=1)
    nearest: NDArray[np.float64] = np.sqrt(squares.min(axis=1)) * step
    return nearest


def _to_grid(values: NDArray[np.floating], reach: float, bits: int) -> tuple[NDArray[np.float64], float]:
    """Return whole numbers of at most `bits` bits and the step, a power of two, that they stand for."""
    step = 2.0 ** (math.ceil(math.log2(max(reach, 1e-30))) - bits)
    return np.rint(values.astype(np.float64) / step), step
