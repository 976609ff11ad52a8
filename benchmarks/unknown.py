"""Unknown benchmark: leave a type out of training, and tell its cells from held-out cells of the known types."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.datasets import DataSet
from benchmarks.left_out import PER_SET, LeftOut, Question
from benchmarks.methods import Method
from benchmarks.methods_unknown import METHODS
from benchmarks.peers_transfer import PACKAGES
from benchmarks.runner import Plan, Results, as_scores
from benchmarks.table import Table
from scrcl_infer.errors import InputError
from scrcl_train.reliability import compute_unknown_auroc

__all__ = ["METHODS", "SETS", "choose_sets", "find_method", "make_table", "score"]

CHOSEN_ON = ("Baron_mouse", "pbmc3k", "MCA_Spleen")
"""The sets on which the settings of strangeness were chosen."""
BARON, LUNG = DataSet("Baron_mouse", batch_key="batch"), DataSet("MCA_Lung1")
PLAIN = ("pbmc3k", "MCA_Spleen", "10X_PBMC_top2000", "human_kidney_Young_top2000", "scmix_sc_celseq2_5cl")
SETS = tuple(
    item
    for rank in range(1, PER_SET + 1)
    for item in (
        LeftOut(BARON, rank, batches=("mouse1",)),
        LeftOut(LUNG, rank, other=DataSet("MCA_Lung3")),
        *(LeftOut(DataSet(name), rank) for name in PLAIN),
    )
)
SHOWN = ("1", "0.2", "0.05")
METRICS = (
    *(f"auroc {share}" for share in SHOWN),
    *(f"{what} {share}" for what in ("kept", "caught", "batch kept") for share in SHOWN),
)

PROTOCOL = """\
A type is left out of training; of every other type 80 % of the cells are learned and 20 % held out. AUROC: how well a
low score tells cells of the left-out type from the held-out ones. Kept: share of the held-out cells that get a type at
the default threshold; caught: share of the left-out type's cells that are 'unknown'; batch kept: share kept of cells of
the learned types of another animal (Baron mouse 1 to 2) or another sample (lung 1 to 3). The number behind each name is
the share of the counts that is left. Three types are left out of each set, evenly over its types of 20 or more cells
sorted by size, without the largest; at most 1,500 cells are learned or held out. Settings of strangeness were chosen on
cases of Baron_mouse (both animals together), pbmc3k and MCA_Spleen; the other sets had no part in it.

Ours is calibrated and distilled as in training, but from a stand-in for the teacher: 50 principal components of 2,000
standardised variable genes, unit rows averaged once over their 15 nearest neighbours, populations by k-means. Logistic
regression as in the transfer benchmark; its score is the probability of its best type. CellTypist as there, too:
trained with its defaults on the learned cells; its score is the highest of its one-against-the-rest probabilities. By
default both give every cell a type, so that they have an AUROC only."""


def score(answers: NDArray[Any], cells: Question, labels: ArrayLike) -> dict[str, float]:
    """Return the scores of answers (2, m): a confidence, and 1 where the cell is unknown (NaN: no threshold)."""
    del cells
    what, (confidence, unknown) = np.asarray(labels, dtype=object), answers.astype(np.float64)
    found = {}
    for share in SHOWN:
        known, novel, batch = (what == f"{group} {share}" for group in ("known", "novel", "batch"))
        both = known | novel
        auroc = compute_unknown_auroc(novel[both], confidence[both])
        found[f"auroc {share}"] = np.nan if auroc is None else auroc
        found[f"kept {share}"] = 1 - unknown[known].mean()
        found[f"caught {share}"] = unknown[novel].mean()
        found[f"batch kept {share}"] = 1 - unknown[batch].mean() if batch.any() else np.nan
    return as_scores({name: value for name, value in found.items() if not np.isnan(value)})


def choose_sets(names: str, group: tuple[LeftOut, ...]) -> tuple[LeftOut, ...]:
    """Turn the option `--sets` into cases: 'all', or parts of names ('pbmc3k', 'MCA_Lung1 2') with commas.

    Raises
    ------
    InputError
        Nothing matches.
    """
    wanted = [part.strip() for part in names.split(",")]
    chosen = tuple(item for item in group if names == "all" or any(part and part in item.name for part in wanted))
    if not chosen:
        msg = f"No case is called {names!r}. Cases: {', '.join(item.name for item in group)}."
        raise InputError(msg)
    return chosen


def find_method(name: str, methods: tuple[Method, ...]) -> Method | None:
    """Return a method by name."""
    return next((method for method in methods if method.name == name), None)


def make_table(plan: Plan, results: Results, n_types: dict[str, int]) -> Table:
    """Return the table of finished calls."""
    names = [item.name for item in plan.sets]
    chosen_on = tuple(name for name in names if name.startswith(CHOSEN_ON))
    groups = (
        ("mean of all", tuple(names)),
        ("mean of the sets chosen on", chosen_on),
        ("mean of the others", tuple(name for name in names if name not in chosen_on)),
        ("mean of those with another batch", tuple(n for n in names if n.startswith((BARON.name, LUNG.name)))),
    )
    notes = {i.name: f" ({i.load().left_out}; {n_types[i.name]} others)" for i in plan.sets if isinstance(i, LeftOut)}
    kinds = {"given": "type left out"}
    return Table("unknown", PROTOCOL, METRICS, groups, plan, results, PACKAGES, kinds=kinds, row_notes=notes)
