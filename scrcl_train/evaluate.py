"""Scores of clusterings and assignments against labels; called only after training.

Besides naming and calibration this is the one place where labels may be looked at. Nothing here returns anything that
training could use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scrcl_infer.contract import UNKNOWN
from scrcl_infer.errors import InputError
from scrcl_train.reliability import (
    ReliabilityRow,
    compute_calibration_error,
    compute_reliability,
    compute_unknown_auroc,
)

UNMATCHED = -1
"""Type index of a cluster that the one-to-one matching left without a type."""


@dataclass(frozen=True)
class ClusteringScores:
    """How well a clustering agrees with labels, over the labelled cells."""

    accuracy: float
    """ACC: share of cells whose cluster is matched to their type, one cluster to one type (Hungarian)."""
    nmi: float
    """Normalised mutual information, arithmetic mean of the entropies."""
    ari: float
    """Adjusted Rand index."""
    macro_f1: float
    """Mean over the labelled types of F1 after the same matching; a type without a cluster has F1 = 0."""
    n_clusters: int
    n_types: int
    n_cells: int
    """Labelled cells; the others were left out."""


@dataclass(frozen=True)
class TypeScores:
    """One type of the labels that the model knows."""

    name: str
    n_cells: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class AssignmentScores:
    """How well an assignment agrees with labels.

    'Shared' types are those that both the labels and the model have; a cell of a shared type that was answered
    'unknown' counts as wrong.
    """

    accuracy: float
    """Over the cells of shared types."""
    macro_f1: float
    """Unweighted mean of F1 over the shared types."""
    weighted_f1: float
    """Mean of F1 over the shared types, weighted by their cells."""
    calibration_error: float | None
    """Expected calibration error over the cells of shared types that got a type; None when none did."""
    unknown_auroc: float | None
    """How well low scores single out cells of types the model lacks; None where all or none of the cells are such."""
    rejected_known: float
    """Share of the cells of shared types that were answered 'unknown'."""
    rejected_novel: float | None
    """Share of the cells of other types that were answered 'unknown'; None without such cells."""
    n_known: int
    n_novel: int
    types: tuple[TypeScores, ...]
    reliability: tuple[ReliabilityRow, ...]


def match_clusters(labels: ArrayLike, clusters: ArrayLike) -> NDArray[np.int64]:
    """Match clusters to types one to one, so that as many cells as possible agree (Hungarian algorithm).

    Parameters
    ----------
    labels
        (n,) type of each cell, without missing values.
    clusters
        (n,) cluster of each cell.

    Returns
    -------
    (n,) int64, for each cell the index (into the sorted types) of the type matched to its cluster, or ``UNMATCHED``
    where there are more clusters than types.
    """
    from scipy.optimize import linear_sum_assignment

    table = _contingency(*_codes(labels, clusters))
    types, found = linear_sum_assignment(table, maximize=True)
    type_of = np.full(table.shape[1], UNMATCHED, dtype=np.int64)
    type_of[found] = types
    matched: NDArray[np.int64] = type_of[_codes(labels, clusters)[1]]
    return matched


def score_clustering(labels: ArrayLike, clusters: ArrayLike) -> ClusteringScores:
    """Score a clustering against labels.

    Parameters
    ----------
    labels
        (n,) type of each cell; cells whose label is None, NaN, '' or 'nan' are left out.
    clusters
        (n,) cluster of each cell, any values.

    Raises
    ------
    InputError
        The lengths differ, or no cell is labelled.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    names, found = _same_length(labels, clusters)
    keep = is_labelled(names)
    if not keep.any():
        msg = "No cell has a label, so there is nothing to score against. Choose another label column."
        raise InputError(msg)
    true, guess = _codes(names[keep], found[keep])
    matched = match_clusters(true, guess)
    f1 = _f1(true, matched, n_types=int(true.max()) + 1)[2]
    return ClusteringScores(
        accuracy=float(np.mean(matched == true)),
        nmi=float(normalized_mutual_info_score(true, guess)),
        ari=float(adjusted_rand_score(true, guess)),
        macro_f1=float(f1.mean()),
        n_clusters=int(guess.max()) + 1,
        n_types=int(true.max()) + 1,
        n_cells=int(keep.sum()),
    )


def score_assignment(
    labels: ArrayLike,
    assigned: ArrayLike,
    confidence: ArrayLike,
    *,
    known_types: Sequence[str],
    rejection_score: ArrayLike | None = None,
) -> AssignmentScores:
    """Score assigned types against labels.

    Parameters
    ----------
    labels
        (n,) true type of each cell, in the model's vocabulary; unlabelled cells are left out.
    assigned
        (n,) assigned type, ``'unknown'`` where rejected.
    confidence
        (n,) probability of the best type, in [0, 1].
    known_types
        The types that the model can assign.
    rejection_score
        (n,) the score that cells are rejected by (low is unknown); the confidence when None.

    Raises
    ------
    InputError
        The lengths differ, or no labelled cell is of a type that the model knows.
    """
    names, answers = _same_length(labels, assigned)
    probability = np.asarray(_same_length(labels, confidence)[1], dtype=np.float64)
    score = probability if rejection_score is None else np.asarray(_same_length(labels, rejection_score)[1], np.float64)
    keep = is_labelled(names)
    known = keep & np.isin(names, np.asarray(sorted(known_types), dtype=object))
    novel = keep & ~known
    if not known.any():
        msg = (
            f"No cell's label is a type of the model: labels such as {_few(names[keep])}, types such as "
            f"{_few(np.asarray(known_types, dtype=object))}. Rename the labels to the model's vocabulary."
        )
        raise InputError(msg)
    rejected = answers == UNKNOWN
    right = answers == names
    typed = known & ~rejected
    types = _score_types(names[known], answers[known])
    weights = np.array([t.n_cells for t in types], dtype=np.float64)
    f1 = np.array([t.f1 for t in types])
    return AssignmentScores(
        accuracy=float(right[known].mean()),
        macro_f1=float(f1.mean()),
        weighted_f1=float(f1 @ weights / weights.sum()),
        calibration_error=compute_calibration_error(probability[typed], right[typed]) if typed.any() else None,
        unknown_auroc=compute_unknown_auroc(novel[keep], score[keep]),
        rejected_known=float(rejected[known].mean()),
        rejected_novel=float(rejected[novel].mean()) if novel.any() else None,
        n_known=int(known.sum()),
        n_novel=int(novel.sum()),
        types=types,
        reliability=compute_reliability(probability[typed], right[typed]),
    )


def is_labelled(labels: ArrayLike) -> NDArray[np.bool_]:
    """Return (n,) bool: which labels say something (not None, NaN, '' or the text 'nan')."""
    values = np.asarray(labels, dtype=object)
    return np.array([not (v is None or v != v or str(v) in ("", "nan")) for v in values], dtype=bool)  # noqa: PLR0124


def _score_types(names: NDArray[np.object_], answers: NDArray[np.object_]) -> tuple[TypeScores, ...]:
    types, true = np.unique(names.astype(str), return_inverse=True)
    index = {name: i for i, name in enumerate(types)}
    guess = np.array([index.get(str(answer), UNMATCHED) for answer in answers], dtype=np.int64)
    precision, recall, f1 = _f1(true, guess, n_types=len(types))
    sizes = np.bincount(true, minlength=len(types))
    rows = zip(types, sizes, precision, recall, f1, strict=True)
    return tuple(TypeScores(str(name), int(n), float(p), float(r), float(f)) for name, n, p, r, f in rows)


def _f1(
    true: NDArray[np.int64], guess: NDArray[np.int64], *, n_types: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Precision, recall and F1 of each type (n_types,); 0 where nothing was answered with it."""
    hits = np.bincount(true[guess == true], minlength=n_types)
    asked = np.bincount(true, minlength=n_types)
    answered = np.bincount(guess[guess >= 0], minlength=n_types)
    return hits / np.maximum(answered, 1), hits / np.maximum(asked, 1), 2 * hits / np.maximum(asked + answered, 1)


def _contingency(true: NDArray[np.int64], guess: NDArray[np.int64]) -> NDArray[np.int64]:
    table = np.zeros((int(true.max()) + 1, int(guess.max()) + 1), dtype=np.int64)
    np.add.at(table, (true, guess), 1)
    return table


def _codes(labels: ArrayLike, clusters: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Turn names into 0-based indices into the sorted names."""
    pair = (np.asarray(labels), np.asarray(clusters))
    true, guess = (np.unique(a.astype(str) if a.dtype == object else a, return_inverse=True)[1] for a in pair)
    return true.astype(np.int64), guess.astype(np.int64)


def _same_length(first: ArrayLike, second: ArrayLike) -> tuple[NDArray[np.object_], NDArray[np.object_]]:
    a, b = np.asarray(first, dtype=object), np.asarray(second, dtype=object)
    if a.shape != b.shape or a.ndim != 1:
        msg = f"Labels and answers must be two lists of the same cells, found shapes {a.shape} and {b.shape}."
        raise InputError(msg)
    return a, b


def _few(names: NDArray[np.object_]) -> str:
    return ", ".join(repr(name) for name in sorted({str(n) for n in names})[:3]) or "none"
