"""Names for populations that were found without labels, from a table of marker genes.

Each type's genes are scored in each cell as Tirosh et al. do (Science 2016, doi:10.1126/science.aad0501; Seurat's
`AddModuleScore`, scanpy's `score_genes`): their mean log-normalised expression less that of genes of like abundance
drawn at random. See `docs/decisions/0007-names.md`.
"""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.contract import UNKNOWN, Population
from scrcl_infer.errors import InputError
from scrcl_infer.gene_names import clean_name
from scrcl_infer.tables import read_table
from scrcl_train.features import normalise

if TYPE_CHECKING:
    from scrcl_train.data import TrainingData

logger = logging.getLogger(__name__)
MIN_GENES = 2
"""A type is scored on at least two genes, or on all that the table lists where it lists fewer."""
MIN_LEAD = 0.05
"""The best mean score must lead the second by this, in standard deviations of the score over all cells ..."""
N_ERRORS = 1.0
"""... and by this many standard errors of the lead over the population's cells."""
MarkerGenes = Mapping[str, tuple[int, ...]]
"""Type to the columns of its marker genes in the training data."""


@dataclass(frozen=True)
class MarkerScores:
    """How the types of a table score in the populations (K populations, T types)."""

    types: tuple[str, ...]
    """Those that could be scored."""
    scores: NDArray[np.float64]
    """(K, T) mean over the population's cells of the score, in standard deviations over all cells, mean 0."""
    chosen: tuple[int, ...]
    """(K,) index into `types`, -1 where none leads."""


def read_markers(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a table with the columns `type` and `gene`, one row for each marker gene of each type.

    Raises
    ------
    InputError
        See `scrcl_infer.tables.read_table`; or a type is called 'unknown'.
    """
    found: dict[str, list[str]] = {}
    for row in read_table(path, ("type", "gene")):
        found.setdefault(row["type"], []).append(row["gene"])
    if UNKNOWN in found:
        msg = f"{path}: a type is called '{UNKNOWN}', which is the answer for rejected cells. Give it another name."
        raise InputError(msg)
    return {name: tuple(dict.fromkeys(genes)) for name, genes in found.items()}


def find_genes(data: TrainingData, markers: Mapping[str, tuple[str, ...]]) -> MarkerGenes:
    """Find each type's genes in the data; says which are not there, and which types are left out for it.

    Parameters
    ----------
    data
        The training cells; a gene without counts is as good as absent.
    markers
        Type to genes: symbols, names of the file or Ensembl ids, regardless of case.

    Raises
    ------
    InputError
        No type has enough genes in the data.
    """
    index = _index_genes(data)
    known: dict[str, tuple[int, ...]] = {}
    for name, genes in markers.items():
        hits = {gene: index.get(clean_name(gene), index.get(clean_name(gene).casefold(), -1)) for gene in genes}
        if absent := [gene for gene, column in hits.items() if column < 0]:
            logger.warning("Marker genes of %s that are not expressed in the data: %s.", name, ", ".join(absent))
        columns = sorted({column for column in hits.values() if column >= 0})
        if len(columns) >= min(MIN_GENES, len(genes)):
            known[name] = tuple(columns)
        else:
            logger.warning("%s is left out: too few of its marker genes are known (%d).", name, len(columns))
    if not known:
        listed = ", ".join(list(dict.fromkeys(gene for genes in markers.values() for gene in genes))[:5])
        there = ", ".join([symbol or name for symbol, name in zip(data.symbols, data.gene_names, strict=True)][:5])
        msg = f"No type of the marker table has enough genes in the data. The table has {listed}; the data has {there}."
        raise InputError(msg)
    return known


def score_populations(
    data: TrainingData, populations: NDArray[np.int64], markers: MarkerGenes, *, seed: int = 0
) -> MarkerScores:
    """Score the types of a marker table in each population.

    Parameters
    ----------
    data
        The training cells; all their genes are used.
    populations
        (n,) in [0, K), every number used.
    markers
        From `find_genes`.
    seed
        Of the genes drawn for comparison.
    """
    scores = _score_cells(data, markers, seed)
    scores = (scores - scores.mean(axis=0)) / np.maximum(scores.std(axis=0), np.finfo(float).tiny)
    members = [scores[populations == k] for k in range(int(populations.max()) + 1)]
    means = np.stack([own.mean(axis=0) for own in members])
    return MarkerScores(tuple(markers), means, tuple(choose_type(own) for own in members))


def choose_type(scores: NDArray[np.float64]) -> int:
    """Return the type that a population's cells speak for.

    Parameters
    ----------
    scores
        (m, T) of the population's cells, mean 0 and standard deviation 1 over all cells.

    Returns
    -------
    int
        The type with the highest mean, -1 where it does not clearly lead: the mean of its cells' differences from the
        second best, or from 0 where that is higher, is at most `MIN_LEAD`, or `N_ERRORS` of its standard errors.
    """
    means = scores.mean(axis=0)
    best, *others = np.argsort(-means, kind="stable").tolist()
    # A score of 0 is that of the average cell: no sign of the type.
    rival = scores[:, others[0]] if others and means[others[0]] > 0 else np.zeros(len(scores))
    lead = scores[:, best] - rival
    if len(lead) < 2:
        return -1
    error = float(lead.std(ddof=1)) / np.sqrt(len(lead))
    return int(best) if lead.mean() > max(MIN_LEAD, N_ERRORS * error) else -1


def apply_marker_names(populations: tuple[Population, ...], found: MarkerScores) -> tuple[Population, ...]:
    """Return the populations with the types chosen for them; the others keep their own name."""
    return tuple(
        population if chosen < 0 else replace(population, cell_type=found.types[chosen])
        for population, chosen in zip(populations, found.chosen, strict=True)
    )


def describe_scores(populations: tuple[Population, ...], found: MarkerScores) -> tuple[str, ...]:
    """Return one line a population, the largest first: name, score and runner-up; and one of the types left over."""
    lines = []
    for k in _by_size(populations):
        population, scores = populations[k], found.scores[k]
        order = np.argsort(-scores, kind="stable")
        told = ", ".join(f"{found.types[i]} {scores[i]:.2f}" for i in order[:2])
        name = population.cell_type if found.chosen[k] >= 0 else "not named"
        lines.append(f"{population.name} ({population.n_cells:,} cells): {name} (scores {told})")
    if missed := [name for i, name in enumerate(found.types) if i not in found.chosen]:
        lines.append(f"No population is named {', '.join(missed)}.")
    return tuple(lines)


def format_scores(populations: tuple[Population, ...], found: MarkerScores) -> str:
    """Return all scores as CSV: population, n_cells, type, score, chosen (0 or 1); best first in each population."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["population", "n_cells", "type", "score", "chosen"])
    for k in _by_size(populations):
        for i in np.argsort(-found.scores[k], kind="stable").tolist():
            score = f"{found.scores[k, i]:.6f}"
            rows.writerow(
                [populations[k].name, populations[k].n_cells, found.types[i], score, int(found.chosen[k] == i)]
            )
    return text.getvalue()


def _by_size(populations: tuple[Population, ...]) -> list[int]:
    return sorted(range(len(populations)), key=lambda k: int(populations[k].name[1:]))


def _index_genes(data: TrainingData) -> dict[str, int]:
    """Return the column of each spelling; exact spellings, symbols and earlier columns go first."""
    index: dict[str, int] = {}
    expressed = np.bincount(data.counts.indices, minlength=data.counts.shape[1]) > 0
    for spell in (str, str.casefold):
        for names in (data.symbols, data.gene_names, data.ensembl_ids):
            for column, name in enumerate(names):
                if name and expressed[column]:
                    index.setdefault(spell(clean_name(name)), column)
    return index


def _score_cells(data: TrainingData, markers: MarkerGenes, seed: int) -> NDArray[np.float64]:
    """Return the score of each type in each cell, (n, T)."""
    import pandas as pd
    import scanpy as sc
    from anndata import AnnData

    # Columns go by number: names need not be unique.
    var = pd.DataFrame(index=[str(i) for i in range(data.counts.shape[1])])
    adata = AnnData(normalise(data.counts, data.library_size), var=var)
    scores = []
    for columns in markers.values():
        sc.tl.score_genes(adata, [str(i) for i in columns], score_name="score", random_state=seed, use_raw=False)
        scores.append(adata.obs["score"].to_numpy(dtype=np.float64))
    return np.stack(scores, axis=1)
