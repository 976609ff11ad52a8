"""Score an annotated `.h5ad` against labels of its own: what `scrcl-train evaluate` prints."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scrcl_infer.columns import CONFIDENCE, STRANGENESS
from scrcl_infer.contract import UNKNOWN
from scrcl_infer.h5ad import H5ad
from scrcl_infer.target import DEFAULT_PREFIX, SLOTS, ColumnNames
from scrcl_train.data import LABEL_HOLES
from scrcl_train.evaluate import is_labelled, score_assignment, score_clustering

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scrcl_infer.source import Source


def evaluate_file(data: Path, label_key: str, *, prefix: str = DEFAULT_PREFIX) -> dict[str, Any]:
    """Score the populations and types of an annotated `.h5ad`.

    Parameters
    ----------
    data
        Written by `scrcl-train --write-h5ad` or `scrcl-assign -o`.
    label_key
        Column of `obs` that holds the truth; cells without label are left out. Where the file has answers at a coarser
        level of this name (`scrcl_KEY` and `scrcl_KEY_confidence`), they are compared in place of the types.
    prefix
        Put before 'population', 'cell_type', 'confidence' and 'strangeness'.

    Returns
    -------
    dict
        'populations' holds the fields of `ClusteringScores`, or a 'reason' why there are none: all labels are the
        same. 'types', where the file has confidences, those of `AssignmentScores`, or a 'reason' why there are none,
        and the 'column' that was compared. The types known are those of the model; of a coarser level, or where the
        file does not say them, those in the column.
        'novel_labels' counts the cells of each label that is none of them, and a 'note' says so where there are any.
        `unknown_auroc` is that of the score that the cells were rejected by: strangeness where the file has it, else
        the confidence of the type.

    Raises
    ------
    InputError
        The file lacks the labels or the answers, or no cell has a label.
    """
    with H5ad(data) as source:
        truth = _read_truth(source, label_key)
        found = source.obs_column(f"{prefix}population")
        scores: dict[str, Any] = {"populations": _score_populations(truth, found)}
        if f"{prefix}confidence" in source.obs_keys():
            scores["types"] = _score_types(source, truth, prefix, label_key)
    return scores


def _read_truth(source: Source, key: str) -> NDArray[np.object_]:
    """Return the labels (n,) as text, '' where a cell has none; those of a sorted sample may all be the same."""
    labels = [str(value) for value in source.obs_column(key)]
    return np.array(["" if label in LABEL_HOLES else label for label in labels], dtype=object)


def _score_populations(truth: NDArray[np.object_], found: NDArray[Any]) -> dict[str, Any]:
    names = set(truth) - {""}
    if len(names) == 1:
        return {"reason": f"no cell has another label than '{names.pop()}': there are no groups to compare with"}
    return dataclasses.asdict(score_clustering(truth, found))


def _score_types(source: Source, truth: NDArray[np.object_], prefix: str, label_key: str) -> dict[str, Any]:
    level = _is_level(source, prefix, label_key)
    column = f"{prefix}{label_key}" if level else f"{prefix}cell_type"
    answers = source.obs_column(column)
    of_model = [] if level else _model_types(source)
    known = sorted(({str(name) for name in answers} | set(of_model)) - {UNKNOWN})
    compared = {"column": column, **_describe_novel(truth, known, all_known=bool(of_model))}
    if not set(known) & set(truth):
        return {**compared, "reason": f"no label is among the types answered: {', '.join(known[:5])}, ..."}
    by_type = source.obs_column(f"{prefix}confidence")
    confidence = source.obs_column(column + CONFIDENCE) if level else by_type
    strange = f"{prefix}{STRANGENESS}"
    score = _familiarity(source.obs_column(strange)) if strange in source.obs_keys() else by_type
    found = score_assignment(truth, answers, confidence, known_types=known, rejection_score=score)
    return {**compared, **dataclasses.asdict(found)}


def _describe_novel(truth: NDArray[np.object_], known: list[str], *, all_known: bool) -> dict[str, Any]:
    """Count the cells of each label that is none of the known types; all are known where the file lists the model's."""
    counted = Counter(str(label) for label in truth[is_labelled(truth)]).most_common()
    novel = {label: n for label, n in counted if label not in known}
    if not novel:
        return {"novel_labels": novel}
    what = "labels that are no type of the model" if all_known else "labels that were never answered"
    listed = ", ".join(f"{label} ({n} {'cell' if n == 1 else 'cells'})" for label, n in novel.items())
    return {"novel_labels": novel, "note": f"{what}: {listed}; their cells are counted as novel"}


def _is_level(source: Source, prefix: str, key: str) -> bool:
    """Return whether the file has answers, with their probability, at a coarser level of the types called `key`."""
    own = {prefix + key, prefix + key + CONFIDENCE}
    return key not in {*ColumnNames._fields, STRANGENESS} and own <= set(source.obs_keys())


def _model_types(source: Source) -> list[str]:
    """Return the types that the model knows, whether it answered them or not; none where the file does not say."""
    import anndata

    if source.path is None:
        return []
    stored = anndata.read_h5ad(source.path, backed="r")
    try:
        return [str(name) for name in stored.uns.get(SLOTS.uns, {}).get("cell_types", [])]
    finally:
        stored.file.close()


def _familiarity(strangeness: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return a score (n,) that is low for strange cells; lowest for cells without counts, which are never answered."""
    values = np.asarray(strangeness, dtype=np.float64)
    measured = np.isfinite(values)
    return -np.where(measured, values, np.max(values[measured], initial=0.0) + 1)
