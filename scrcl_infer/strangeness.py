"""How strange a cell is to the model: its distance from every class of the training cells. Numpy only.

Three distances are taken, each to the nearest class mean in units of the spread within classes (Mahalanobis): in the
embedding, in the log posterior, and in the principal components of the encoder's input, which also show what the
encoder has learned to look past. Each is compared with that of held-out training cells of which as many of the model's
genes were detected, since a cell of few counts lies further out whatever it is.

The numbers that are multiplied and added for the distances are first rounded to a grid so coarse that double precision
holds every sum exactly. So the order of additions does not matter, and the fast matrix product may be used: the answer
is the same to the last bit whatever the block, the number of threads, or the library behind numpy.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.contract import Rejection

EXACT_BITS = 53
"""Whole numbers up to 2^53 are exact in double precision."""
INPUT_BITS = 22
"""Of the embedding and the log posterior on their grid: half of a float32's last place."""
LOG_FLOOR = -30.0
"""Log posteriors are raised to this: what is less likely is equally impossible."""
WEIGHTS = (1.0, 1.0, 2.0)
"""Of the three distances: what the encoder makes of a cell counts as much as what went into it."""
POSTERIOR_REACH = 32.0
"""A power of two that no entry of the log posterior exceeds."""
COMPONENTS_REACH = 1024.0
"""Components are cut off there, which those of 10,000 genes do not reach."""


class Spaces(NamedTuple):
    """Where cells lie (N cells)."""

    embedding: NDArray[np.float32]
    """(N, D) unit rows."""
    posterior: NDArray[np.float32]
    """(N, C) natural log, over types where the model has a type head, else over populations."""
    components: NDArray[np.float32]
    """(N, Q) of the encoder's input."""


def compute_strangeness(spaces: Spaces, n_detected: NDArray[np.int64], rejection: Rejection) -> NDArray[np.float64]:
    """Return how strange each cell is; above 0 it is unknown.

    Parameters
    ----------
    spaces
        What the encoder gave for the cells.
    n_detected
        (N,) number of the model's genes of which the cell has a count.
    rejection
        What held-out training cells gave.

    Returns
    -------
    NDArray
        (N,) the weighted sum of the distances, each less its median and divided by its spread among held-out cells of
        as many detected genes, less the sum that 95 % of those cells stay below.
    """
    total = add_distances(compute_distances(spaces, rejection), n_detected, rejection)
    return total - expect(rejection.limit, n_detected, rejection)


def compute_distances(spaces: Spaces, rejection: Rejection) -> NDArray[np.float64]:
    """Return the distances (N, 3) to the nearest class mean in each of the spaces."""
    floored = np.maximum(spaces.posterior, np.float32(LOG_FLOOR))
    components = np.clip(spaces.components, np.float32(-COMPONENTS_REACH), np.float32(COMPONENTS_REACH))
    known = rejection
    return np.column_stack(
        [
            # Rows of the embedding are of length 1; of the others no more is known than how large an entry may be.
            _distance(spaces.embedding, known.embedding_whitening, known.embedding_means, 1.0, longest=1.001),
            _distance(floored, known.posterior_whitening, known.posterior_means, POSTERIOR_REACH),
            _distance(components, known.components_whitening, known.components_means, COMPONENTS_REACH),
        ]
    )


def add_distances(
    distances: NDArray[np.float64], n_detected: NDArray[np.int64], rejection: Rejection
) -> NDArray[np.float64]:
    """Return the weighted sum (N,) of distances (N, 3), each in units of its spread about its usual median."""
    total = np.zeros(len(distances))
    for column, weight in enumerate(WEIGHTS):
        median = expect(rejection.median[:, column], n_detected, rejection)
        spread = expect(rejection.spread[:, column], n_detected, rejection)
        total += weight * ((distances[:, column] - median) / spread)
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
    values: NDArray[np.float32],
    whitening: NDArray[np.float32],
    means: NDArray[np.float32],
    reach: float,
    *,
    longest: float | None = None,
) -> NDArray[np.float64]:
    """Distance (N,) of the rows `values` (N, D) @ `whitening` (D, D) from the nearest row of `means` (C, D).

    No entry of `values` exceeds `reach`, and no row the length `longest`.
    """
    longest = reach * math.sqrt(len(whitening)) if longest is None else longest
    n_terms = math.ceil(math.log2(len(whitening))) + 1
    cells, cell_step = _to_grid(values, reach, INPUT_BITS)
    weights, weight_step = _to_grid(whitening, float(np.abs(whitening).max()), EXACT_BITS - INPUT_BITS - n_terms)
    placed = (cells @ weights) * (cell_step * weight_step)  # exact: both steps are powers of two
    # Cauchy and Schwarz
    furthest = max(float(np.linalg.norm(whitening, axis=0).max()) * longest, float(np.abs(means).max()))
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
