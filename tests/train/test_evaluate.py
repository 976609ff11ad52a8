"""Scores against scikit-learn, scipy's assignment by brute force, and the stored figures of the authors' code."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics

from scrcl_infer.contract import UNKNOWN
from scrcl_infer.errors import InputError
from scrcl_train.evaluate import (
    UNMATCHED,
    is_labelled,
    match_clusters,
    score_assignment,
    score_clustering,
)

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "metrics.npz"

small_labels = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=40)


def brute_force_accuracy(true: NDArray[np.int64], guess: NDArray[np.int64]) -> float:
    """Best share of agreeing cells over every one-to-one matching of clusters to types."""
    types, clusters = np.unique(true), np.unique(guess)
    wide = list(types) + [UNMATCHED] * max(0, len(clusters) - len(types))
    return max(
        float(np.mean([dict(zip(clusters, order, strict=False)).get(g) == t for t, g in zip(true, guess, strict=True)]))
        for order in itertools.permutations(wide, len(clusters))
    )


def test_clustering_scores_equal_the_stored_figures() -> None:
    golden = np.load(GOLDEN)
    found = score_clustering(golden["y_true"], golden["y_pred"])
    expected = golden["acc_nmi_ari_f1"].tolist()
    assert [found.accuracy, found.nmi, found.ari, found.macro_f1] == pytest.approx(expected, rel=1e-12)


@given(small_labels)
@settings(max_examples=60, deadline=None)
def test_clustering_scores_equal_sklearn_and_brute_force(pairs: list[tuple[int, int]]) -> None:
    true, guess = np.array(pairs).T
    found = score_clustering(true, guess)
    assert found.accuracy == pytest.approx(brute_force_accuracy(true, guess))
    assert found.nmi == pytest.approx(metrics.normalized_mutual_info_score(true, guess))
    assert found.ari == pytest.approx(metrics.adjusted_rand_score(true, guess))
    matched = match_clusters(true, guess)
    codes = np.unique(true, return_inverse=True)[1]
    expected = metrics.f1_score(codes, matched, labels=np.unique(codes), average="macro", zero_division=0)
    assert found.macro_f1 == pytest.approx(expected)
    assert (found.n_clusters, found.n_types) == (len(set(guess)), len(set(true)))


def test_scores_do_not_depend_on_how_clusters_are_named() -> None:
    rng = np.random.default_rng(0)
    true, guess = rng.integers(0, 5, 200), rng.integers(0, 7, 200)
    names = np.array([f"cluster {i}" for i in rng.permutation(7)], dtype=object)
    renamed = score_clustering(np.array(list("abcde"), dtype=object)[true], names[guess])
    assert dataclasses.astuple(renamed) == pytest.approx(dataclasses.astuple(score_clustering(true, guess)))


def test_perfect_clustering_under_other_names_scores_one() -> None:
    found = score_clustering(["B", "T", "T", "NK"], [2, 7, 7, 0])
    assert (found.accuracy, found.nmi, found.ari, found.macro_f1) == pytest.approx((1, 1, 1, 1))


def test_each_type_gets_one_cluster_only() -> None:
    matched = match_clusters(["a", "a", "a", "b"], [0, 0, 1, 2])
    assert matched.tolist() == [0, 0, UNMATCHED, 1]
    assert score_clustering(["a", "a", "a", "b"], [0, 0, 1, 2]).accuracy == 0.75


def test_unlabelled_cells_are_left_out() -> None:
    labels = np.array(["a", None, "b", np.nan, "nan", "b", ""], dtype=object)
    assert is_labelled(labels).tolist() == [True, False, True, False, False, True, False]
    found = score_clustering(labels, [0, 1, 1, 0, 0, 1, 0])
    assert (found.n_cells, found.n_types, found.ari) == (3, 2, 1.0)


def test_clusterings_that_cannot_be_scored_are_refused() -> None:
    with pytest.raises(InputError, match=r"found shapes \(2,\) and \(3,\)"):
        score_clustering(["a", "b"], [0, 1, 1])
    with pytest.raises(InputError, match="another label column"):
        score_clustering([None, None], [0, 1])


def simulate_assignment(seed: int = 0) -> tuple[NDArray[np.object_], NDArray[np.object_], NDArray[np.float64]]:
    """400 cells of types a-d, an answer that is right as often as its confidence says, of types a-c or unknown."""
    rng = np.random.default_rng(seed)
    names = np.array(list("abcd"), dtype=object)
    labels = names[rng.choice(4, 400, p=[0.5, 0.3, 0.1, 0.1])]
    confidence = rng.uniform(0.2, 1, 400)
    wrong = names[rng.integers(0, 3, 400)]
    answers = np.where(rng.random(400) < confidence, labels, wrong)
    answers[(answers == "d") | (confidence < 0.3)] = UNKNOWN
    return labels, answers, confidence


def test_assignment_scores_equal_sklearn() -> None:
    labels, answers, confidence = simulate_assignment()
    found = score_assignment(labels, answers, confidence, known_types=["a", "b", "c", "e"])
    known = labels != "d"
    y, p = labels[known].astype(str), answers[known].astype(str)
    shared = ["a", "b", "c"]
    assert found.accuracy == pytest.approx(metrics.accuracy_score(y, p))
    for average, value in (("macro", found.macro_f1), ("weighted", found.weighted_f1)):
        assert value == pytest.approx(metrics.f1_score(y, p, labels=shared, average=average, zero_division=0))
    precision, recall, f1, support = metrics.precision_recall_fscore_support(y, p, labels=shared, zero_division=0)
    assert [t.name for t in found.types] == shared
    assert [t.precision for t in found.types] == pytest.approx(precision)
    assert [t.recall for t in found.types] == pytest.approx(recall)
    assert [t.f1 for t in found.types] == pytest.approx(f1)
    assert [t.n_cells for t in found.types] == support.tolist()
    assert found.unknown_auroc == pytest.approx(metrics.roc_auc_score(~known, -confidence))
    assert (found.n_known, found.n_novel) == (known.sum(), (~known).sum())
    assert found.rejected_known == pytest.approx(np.mean(answers[known] == UNKNOWN))
    assert found.rejected_novel == pytest.approx(np.mean(answers[~known] == UNKNOWN))


def test_calibration_is_over_cells_that_got_a_type() -> None:
    labels, answers, confidence = simulate_assignment()
    before = score_assignment(labels, answers, confidence, known_types=["a", "b", "c"])
    confidence[answers == UNKNOWN] = 0.01
    after = score_assignment(labels, answers, confidence, known_types=["a", "b", "c"])
    assert before.calibration_error == after.calibration_error
    assert sum(row.n_cells for row in after.reliability) == np.sum((answers != UNKNOWN) & (labels != "d"))


def test_a_rejection_score_of_its_own_is_used_for_finding_novel_cells() -> None:
    found = score_assignment(
        ["a", "a", "x"], ["a", "a", "a"], [0.9, 0.9, 0.9], known_types=["a"], rejection_score=[1, 2, 0]
    )
    assert found.unknown_auroc == 1.0


def test_without_novel_or_typed_cells_the_scores_are_none() -> None:
    found = score_assignment(["a", "b"], [UNKNOWN, UNKNOWN], [0.1, 0.2], known_types=["a", "b"])
    assert (found.unknown_auroc, found.rejected_novel, found.calibration_error) == (None, None, None)
    assert (found.accuracy, found.macro_f1, found.rejected_known) == (0, 0, 1)


def test_labels_in_another_vocabulary_are_refused() -> None:
    with pytest.raises(InputError, match=r"labels such as 'T-cell'.*types such as 'T cell'"):
        score_assignment(["T-cell"], ["T cell"], [0.5], known_types=["T cell"])
