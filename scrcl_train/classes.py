"""Describe the training cells' classes, from which `scrcl_infer.strangeness` measures how far a cell lies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scrcl_infer.parts import Rejection
from scrcl_infer.strangeness import N_SIGNS, Spaces, compute_class_distances
from scrcl_train.student import Prediction, Student

SHRINKAGE = 0.1
"""Of the covariance within classes towards the same variance in every direction: some classes have few cells."""
RADIUS_CELLS = 30
"""As many cells at the median distance of all are counted among a class's own, whose few say little."""
MIN_RADIUS = 1e-6


def spaces_of(answer: Prediction) -> Spaces:
    """Return where a student puts cells; the classes are its types, or its populations where it has no type head."""
    types = answer.log_type_posterior
    classes = answer.log_posterior if types is None else types
    return Spaces(answer.embedding, answer.components, answer.rarity, classes)


def fit_classes(student: Student, answer: Prediction, classes: NDArray[np.int64]) -> Rejection:
    """Fit class means, the spread within classes, and how far the classes' own cells usually lie.

    Parameters
    ----------
    student, answer
        A student, and its answer for the cells that it has learned (n cells).
    classes
        (n,) types, or populations where the student has no type head; -1 for cells to leave out. The same as in the
        student's targets.

    Returns
    -------
    Rejection
        With a scale that says nothing: medians 0, spreads and weights 1, and a limit of 0.
    """
    known = classes >= 0
    _, codes = np.unique(classes[known], return_inverse=True)
    spaces, real = Spaces(*(space[known] for space in spaces_of(answer))), np.float32
    whitening, means = _whiten(spaces.embedding.astype(np.float64), codes)
    turned, centres = _whiten(spaces.components[:, 1:-1].astype(np.float64), codes)
    profiles = _class_means(spaces.components[:, :-1].astype(np.float64), codes)
    profiles /= np.maximum(np.linalg.norm(profiles, axis=1, keepdims=True), MIN_RADIUS)
    even, blank = np.ones(len(means), real), np.zeros((1, N_SIGNS), real)
    found = Rejection(
        whitening.astype(real), means.astype(real), even, turned.astype(real), centres.astype(real), even,
        profiles.astype(real), even, student.rarity.numpy().astype(np.uint8),
        np.zeros(1, real), np.ones(1, real), blank[None], blank[None] + 1, blank + 1, np.zeros((1, 1), real),
    )  # fmt: skip
    radii = [_fit_radii(distances, codes) for distances in compute_class_distances(spaces, found)]
    return replace(found, embedding_radii=radii[0], components_radii=radii[1], profile_radii=radii[2])


def _fit_radii(distances: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.float32]:
    """Mean distance (C,) of each class's cells from it, of distances (n, C); see `RADIUS_CELLS`."""
    own = distances[np.arange(codes.size), codes]
    sums, sizes = np.bincount(codes, own), np.bincount(codes)
    radii = (sums + RADIUS_CELLS * np.median(own)) / (sizes + RADIUS_CELLS)
    floored: NDArray[np.float32] = np.maximum(radii, MIN_RADIUS).astype(np.float32)
    return floored


def _class_means(values: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    member = sp.csr_matrix((np.ones(codes.size), (codes, np.arange(codes.size))))
    return np.asarray(member @ values) / np.bincount(codes)[:, None]


def _whiten(values: NDArray[np.float64], codes: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return W (D, D) with W Wᵀ the inverse of the shrunk covariance within classes, and the class means @ W (C, D)."""
    means = _class_means(values, codes)
    residual = values - means[codes]
    covariance = residual.T @ residual / max(codes.size - len(means), 1)
    n_columns = values.shape[1]
    variance = np.trace(covariance) / n_columns
    if variance <= 0:  # a single class, or cells that are all alike
        return np.eye(n_columns), means
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * variance * np.eye(n_columns)
    roots, vectors = np.linalg.eigh(covariance)
    whitening = vectors / np.sqrt(roots)
    return whitening, means @ whitening
