"""How strange a cell is to the model: how far from every class of the training cells, how doubtful. Numpy only.

There are five signs. Three are distances: in the embedding, in the principal components of the encoder's input, which
also show what the encoder has learned to look past (both in units of the spread within classes: Mahalanobis), and the
angle between the input as a whole and the class's mean, which also sees what no component shows. Each is measured by
how far the class's own cells usually lie, and the nearest class counts. The fourth is how rare the genes that the cell
shows are in a class, by how rare those of the class's own cells are which show as many; again the class counts in which
they are the least rare. The fifth is the encoder's doubt, the log probability that its best class is wrong. Each is
then compared with that of held-out training cells of which as many of the model's genes were detected, since a cell of
few counts lies further out whatever it is, and which lacked as many of the genes altogether; and their weighted sum is
taken.

The numbers that are multiplied and added for the distances are first rounded to a grid so coarse that double precision
holds every sum exactly. So the order of additions does not matter, and the fast matrix product may be used: the answer
is the same to the last bit whatever the block, the number of threads, or the library behind numpy.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.depth import expect
from scrcl_infer.parts import Rejection
from scrcl_infer.rarity import UsualRarity, compute_rarity, expect_rarity

EXACT_BITS = 53
"""Whole numbers up to 2^53 are exact in double precision."""
INPUT_BITS = 22
"""Of the encoder's outputs on their grid: half of a float32's last place."""
COMPONENTS_REACH = 1024.0
"""Components are cut off there, which those of 10,000 genes do not reach."""
N_SIGNS = 5
LEAST_DOUBT = -30.0
"""Log probability of being wrong below which one doubt is as good as another; single precision knows no better."""
DOUBT_STEP = 2.0**-16
"""Doubt is rounded to that: the last place of a logarithm is not the same in every library."""


class Spaces(NamedTuple):
    """Where cells lie (N cells)."""

    embedding: NDArray[np.float32]
    """(N, D) unit rows."""
    components: NDArray[np.float32]
    """(N, Q + 2) of the encoder's input; see `scrcl_infer.parts.Rejection`."""
    rarity: NDArray[np.float32]
    """(N, C) sum of the rarities of the cell's genes in each class, whole numbers."""
    log_posterior: NDArray[np.float32]
    """(N, C) over the classes, as the encoder gave it."""


class Usual(NamedTuple):
    """What is usual at each depth in files of one overlap, and what the signs weigh."""

    log_detected: NDArray[np.float32]
    """(m,) as of `scrcl_infer.parts.Rejection`, and so on."""
    median: NDArray[np.float32]
    """(m, 5)"""
    spread: NDArray[np.float32]
    """(m, 5)"""
    weights: NDArray[np.float32]
    """(m, 5)"""


class Reference(NamedTuple):
    """What cells of one file are measured against."""

    classes: Rejection
    usual: Usual
    limit: NDArray[np.float32]
    """(m,)"""
    rarity: UsualRarity


def refer(rejection: Rejection, found: NDArray[np.bool_] | None = None) -> Reference:
    """Return what the cells of a file are measured against which has the model's genes `found` (G,); None: all."""
    overlap = 1.0 if found is None else float(found.mean())
    median, spread, limit = (
        _at_overlap(values, overlap, rejection.overlap)
        for values in (rejection.median, rejection.spread, rejection.limit)
    )
    usual = Usual(rejection.log_detected, median, spread, rejection.weights)
    return Reference(rejection, usual, limit, expect_rarity(rejection.rarity, found))


def _at_overlap(values: NDArray[np.float32], overlap: float, knots: NDArray[np.float32]) -> NDArray[np.float32]:
    """Interpolate arrays (v, ...) of the overlaps (v,) linearly, (...); flat below the first."""
    place = float(np.interp(overlap, knots, np.arange(len(knots))))
    before = min(int(place), max(len(knots) - 2, 0))
    share = np.float32(place - before)
    after = min(before + 1, len(knots) - 1)
    mixed: NDArray[np.float32] = (1 - share) * values[before] + share * values[after]
    return mixed


def compute_strangeness(spaces: Spaces, n_detected: NDArray[np.int64], reference: Reference) -> NDArray[np.float64]:
    """Return how strange each cell is; above 0 it is unknown.

    Parameters
    ----------
    spaces
        What the encoder gave for the cells.
    n_detected
        (N,) number of the model's genes of which the cell has a count.
    reference
        What held-out training cells gave, for the file that the cells are of.

    Returns
    -------
    NDArray
        (N,) the weighted sum of the signs, each less its median and divided by its spread among held-out cells of as
        many detected genes, less the sum that 95 % of those cells stay below.
    """
    signs = compute_signs(spaces, n_detected, reference.classes, reference.rarity)
    return add_signs(signs, n_detected, reference.usual) - expect(
        reference.limit, n_detected, reference.usual.log_detected
    )


def compute_signs(
    spaces: Spaces, n_detected: NDArray[np.int64], classes: Rejection, usual: UsualRarity
) -> NDArray[np.float64]:
    """Return (N, 5): the distances to the nearest class in embedding, components and profile, the rarity, the doubt."""
    distances = compute_class_distances(spaces, classes)
    radii = classes.embedding_radii, classes.components_radii, classes.profile_radii
    nearest = [(d / r.astype(np.float64)).min(axis=1) for d, r in zip(distances, radii, strict=True)]
    rarity = compute_rarity(spaces.rarity, n_detected, usual)
    return np.column_stack([*nearest, rarity, compute_doubt(spaces.log_posterior)])


def compute_doubt(log_posterior: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the log probability (N,) that the best of the classes (N, C) is wrong, `LEAST_DOUBT` at least."""
    shares = np.exp(log_posterior.astype(np.float64))
    best = shares.argmax(axis=1)
    # Summed without the best: one less a probability near one has no digits left.
    shares[np.arange(len(shares)), best] = 0
    wrong = np.maximum(shares.sum(axis=1), math.exp(LEAST_DOUBT))
    doubt: NDArray[np.float64] = np.rint(np.log(wrong) / DOUBT_STEP) * DOUBT_STEP
    return doubt


def compute_class_distances(spaces: Spaces, rejection: Rejection) -> tuple[NDArray[np.float64], ...]:
    """Return the three distances to every class, (N, C) each, not yet measured by the classes' radii."""
    known, reach = rejection, np.float32(COMPONENTS_REACH)
    leading = np.clip(spaces.components[:, 1:-1], -reach, reach)
    length = np.maximum(spaces.components[:, -1:], np.float32(1e-6))
    profile = np.clip(spaces.components[:, :-1] / length, np.float32(-1), np.float32(1)).astype(np.float32)
    return (
        # Rows of the embedding are of length 1; of the components no more is known than how large one may be.
        _spread_distance(spaces.embedding, known.embedding_whitening, known.embedding_means, 1.0, longest=1.001),
        _spread_distance(leading, known.components_whitening, known.components_means, COMPONENTS_REACH),
        1 - _multiply(profile, np.ascontiguousarray(known.profile_means.T)),
    )


def add_signs(signs: NDArray[np.float64], n_detected: NDArray[np.int64], usual: Usual) -> NDArray[np.float64]:
    """Return the weighted sum (N,) of signs (N, 5), each in units of its spread about its usual median."""
    total = np.zeros(len(signs))
    for column in range(N_SIGNS):
        median, spread, weight = (
            expect(values[:, column], n_detected, usual.log_detected)
            for values in (usual.median, usual.spread, usual.weights)
        )
        total += weight * ((signs[:, column] - median) / spread)
    return total


def _spread_distance(
    values: NDArray[np.float32],
    whitening: NDArray[np.float32],
    means: NDArray[np.float32],
    reach: float,
    *,
    longest: float | None = None,
) -> NDArray[np.float64]:
    """Distances (N, C) of the rows `values` (N, D) @ `whitening` (D, D) from the rows of `means` (C, D).

    No entry of `values` exceeds `reach`, and no row the length `longest`.
    """
    longest = reach * math.sqrt(len(whitening)) if longest is None else longest
    n_terms = _bits_of_terms(whitening)
    placed = _multiply(values, whitening, reach=reach)
    # Cauchy and Schwarz
    furthest = max(float(np.linalg.norm(whitening, axis=0).max()) * longest, float(np.abs(means).max()))
    # (y - m)² is at most 4 times the square of the reach, and there are D of them.
    bits = (EXACT_BITS - 2 - n_terms) // 2
    y, step = _to_grid(placed, furthest, bits)
    m, _ = _to_grid(means, furthest, bits)
    squares = (y * y).sum(axis=1)[:, None] - 2 * (y @ m.T) + (m * m).sum(axis=1)
    distances: NDArray[np.float64] = np.sqrt(squares) * step
    return distances


def _multiply(values: NDArray[np.float32], weights: NDArray[np.float32], *, reach: float = 1.0) -> NDArray[np.float64]:
    """Matrix product of `values`, no entry of which exceeds `reach`, and `weights`, exact on their grids."""
    cells, cell_step = _to_grid(values, reach, INPUT_BITS)
    largest = float(np.abs(weights).max())
    whole, weight_step = _to_grid(weights, largest, EXACT_BITS - INPUT_BITS - _bits_of_terms(weights))
    product: NDArray[np.float64] = (cells @ whole) * (cell_step * weight_step)  # exact: both steps are powers of two
    return product


def _bits_of_terms(weights: NDArray[np.float32]) -> int:
    """Bits that a sum of as many terms as `weights` has rows needs more than one term."""
    return math.ceil(math.log2(len(weights))) + 1


def _to_grid(values: NDArray[np.floating], reach: float, bits: int) -> tuple[NDArray[np.float64], float]:
    """Return whole numbers of at most `bits` bits and the step, a power of two, that they stand for."""
    step = 2.0 ** (math.ceil(math.log2(max(reach, 1e-30))) - bits)
    return np.rint(values.astype(np.float64) / step), step
