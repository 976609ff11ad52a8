"""Unknown benchmark: leave a type out of training, and tell its cells from held-out cells of the known types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.datasets import DataSet
from benchmarks.left_out import LeftOut, Question, Source
from benchmarks.methods import Method
from benchmarks.methods_unknown import METHODS
from benchmarks.peers_transfer import PACKAGES
from benchmarks.runner import Plan, Results, as_scores
from benchmarks.table import Table, format_grid, summarise
from scrcl_infer.errors import InputError
from scrcl_train.reliability import compute_unknown_auroc

__all__ = ["METHODS", "SETS", "choose_sets", "find_method", "make_table", "score"]

BARON, LUNG = DataSet("Baron_mouse", batch_key="batch"), DataSet("MCA_Lung1")
PLAIN = (
    "pbmc3k",
    "MCA_Spleen",
    "10X_PBMC_top2000",
    "human_kidney_Young_top2000",
    "scmix_sc_celseq2_5cl",
    "worm_neuron_cell",
    "panc8_small",
    "Kang_PBMC_8k",
)
FRESH = ("symphony_pbmc1200", "MCA_Lung3")
"""Sets that were looked at last, and had little part in choosing how strangeness is measured; the others had."""
SETS = (
    Source(BARON, batches=("mouse1",)),
    Source(LUNG, other=DataSet("MCA_Lung3")),
    *(Source(DataSet(name)) for name in (*PLAIN, *FRESH)),
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
the share of the counts that is left. Every type of 20 or more cells is left out in turn (number 1 is the largest); at
most 1,500 cells are learned or held out. How strangeness is measured was chosen on the first ten sets;
symphony_pbmc1200 (three technologies) and MCA_Lung3 (the tissue of MCA_Lung1) were looked at last, once before the form
of rarity was settled between two that were level on the ten. The last tables are means over sets of the means over
their types, as some sets have many more types than others. panc8_small: five technologies together.

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


def choose_sets(names: str, group: tuple[Source, ...]) -> tuple[LeftOut, ...]:
    """Turn the option `--sets` into cases: 'all', or parts of names ('pbmc3k', 'MCA_Lung1 2') with commas.

    Raises
    ------
    InputError
        Nothing matches.
    """
    cases = tuple(case for source in group for case in source.cases())
    wanted = [part.strip() for part in names.split(",")]
    chosen = tuple(case for case in cases if names == "all" or any(part and part in case.name for part in wanted))
    if not chosen:
        msg = f"No case is called {names!r}. Cases: {', '.join(case.name for case in cases)}."
        raise InputError(msg)
    return chosen


def find_method(name: str, methods: tuple[Method, ...]) -> Method | None:
    """Return a method by name."""
    return next((method for method in methods if method.name == name), None)


def make_table(plan: Plan, results: Results, n_types: dict[str, int]) -> Table:
    """Return the table of finished calls."""
    cases = [item for item in plan.sets if isinstance(item, LeftOut)]
    by_set: dict[str, tuple[str, ...]] = {}
    for case in cases:
        by_set[case.source.data.name] = (*by_set.get(case.source.data.name, ()), case.name)
    names = tuple(case.name for case in cases)
    fresh = {data: members for data, members in by_set.items() if data in FRESH}
    chosen_on = {data: members for data, members in by_set.items() if data not in FRESH}
    groups = (
        *((f"mean of {data}", members) for data, members in by_set.items()),
        ("mean of all types", names),
        ("mean of the types of sets chosen on", tuple(name for members in chosen_on.values() for name in members)),
        ("mean of the types of the others", tuple(name for members in fresh.values() for name in members)),
    )
    notes = {case.name: f" ({case.load().left_out}; {n_types[case.name]} others)" for case in cases}
    kinds = {"given": "type left out"}
    table = Table("unknown", PROTOCOL, METRICS, groups, plan, results, PACKAGES, kinds=kinds, row_notes=notes)
    kinds_of_sets = (("sets chosen on", chosen_on), ("others", fresh))
    closing = [average_sets(table, members, name) for name, members in kinds_of_sets if members]
    return replace(table, closing="\n\n".join(closing))


def average_sets(table: Table, by_set: Mapping[str, Sequence[str]], name: str) -> str:
    """Return Markdown: the mean over sets of each set's mean over its types, for every column and metric."""
    columns = [c for m in table.plan.methods for c in m.columns]
    rows = []
    for metric in table.metrics:
        means = [[summarise(table, c.key, names, metric) for names in by_set.values()] for c in columns]
        # Rates of unknown are of those with a rule; another batch is there in two sets only.
        found = [[pair[0] for pair in of_sets if pair is not None] for of_sets in means]
        rows.append([metric, *(f"{fmean(values):.3f}" if values else "" for values in found)])
    return f"## Mean of the {len(by_set)} {name}\n\n" + format_grid(["score", *(c.title for c in columns)], rows)
