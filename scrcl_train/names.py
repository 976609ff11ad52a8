"""All that gives names to what is found: labels at one or several levels, ontology ids, or a table of marker genes.

Read before the training, so that what cannot be used is refused then; used after it, so that it decides nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.columns import ONTOLOGY_COLUMN
from scrcl_infer.contract import CellType, LabelLevel, Population
from scrcl_infer.errors import InputError
from scrcl_infer.h5ad import H5ad
from scrcl_infer.ontology import find_problem
from scrcl_infer.rename import list_types
from scrcl_infer.tables import read_table
from scrcl_train.checkpoint import RUN_FILES
from scrcl_train.data import read_labels
from scrcl_train.marker_names import (
    MarkerGenes,
    apply_marker_names,
    describe_scores,
    find_genes,
    format_scores,
    read_markers,
    score_populations,
)
from scrcl_train.naming import NO_LABEL, compute_types, name_populations
from scrcl_train.nesting import check_label_keys, find_levels

if TYPE_CHECKING:
    from scrcl_train.data import TrainingData
    from scrcl_train.options import TrainOptions

logger = logging.getLogger(__name__)
MIN_CELLS_PER_LABEL = 2
"""Fewer on average, and the column holds names of cells or measurements."""


@dataclass(frozen=True)
class Names:
    """What cells and types are called (n cells)."""

    labels: NDArray[np.object_] | None = None
    """(n,) of the finest level, '' where a cell has none; None without labels."""
    levels: tuple[LabelLevel, ...] = ()
    """The coarser levels."""
    ontology_ids: Mapping[str, str] | None = None
    """Name to ontology id."""
    markers: MarkerGenes | None = None
    """Type to the columns of its marker genes."""


@dataclass(frozen=True)
class Named:
    """What was named how."""

    populations: tuple[Population, ...]
    cell_types: tuple[CellType, ...]
    remarks: tuple[str, ...] = ()
    """Lines for the summary."""


def check_names(options: TrainOptions) -> None:
    """Refuse options and tables that cannot be used, before the data is read.

    Raises
    ------
    InputError
        Labels and markers are both given; ontology ids are given and nothing that names types; a table cannot be read.
    """
    check_label_keys(options.label_keys)
    if options.markers is not None and options.label_keys:
        msg = (
            "--labels and --markers both name the populations, and would contradict each other. Take the labels where "
            "they are to be trusted; the type head can only be taught by them."
        )
        raise InputError(msg)
    if options.markers is not None:
        read_markers(options.markers)
    if options.ontology_ids is not None:
        if options.markers is None and not options.label_keys:
            msg = "--ontology-ids gives ids to names, and there are none without --labels or --markers."
            raise InputError(msg)
        read_ontology_ids(options.ontology_ids)


def read_names(path: Path, data: TrainingData, options: TrainOptions) -> Names:
    """Read labels, ontology ids and markers.

    Parameters
    ----------
    path
        The training file.
    data
        The cells used of it.
    options
        Name the columns and tables.

    Raises
    ------
    InputError
        A column is missing or has fewer than two labels, levels do not nest, a table cannot be used, or no type of the
        marker table has enough genes in the data.
    """
    ids = {} if options.ontology_ids is None else read_ontology_ids(options.ontology_ids, species=data.species)
    if options.markers is not None:
        markers = read_markers(options.markers)
        _report_ids(ids, markers, options)
        return Names(ontology_ids=ids, markers=find_genes(data, markers))
    if not options.label_keys:
        return Names()
    labels, *coarser = (read_labels(path, key)[data.rows] for key in options.label_keys)
    check_types(labels, options.label_keys[0])
    if options.ontology_ids is None:
        ids = find_ontology_ids(path, data, labels)
    levels = find_levels(labels, dict(zip(options.label_keys[1:], coarser, strict=True)), ids)
    _report_ids(ids, [*compute_types(labels), *(name for level in levels for name in level.names)], options)
    return Names(labels, levels, ids)


def check_types(labels: NDArray[np.object_], key: str) -> None:
    """Refuse labels (n,) that are hardly types, and say how many cells have none.

    Raises
    ------
    InputError
        On average a label has fewer than `MIN_CELLS_PER_LABEL` cells.
    """
    n_labelled, n_types = int((labels != NO_LABEL).sum()), len(compute_types(labels))
    if n_labelled < MIN_CELLS_PER_LABEL * n_types:
        msg = (
            f"obs['{key}'] has {n_types:,} different labels for {n_labelled:,} cells, expected "
            f"{MIN_CELLS_PER_LABEL} cells of a type or more on average. Name a column that holds types."
        )
        raise InputError(msg)
    if n_labelled < len(labels):
        logger.warning(
            "obs['%s'] has no label for %s of %s cells: they have a part in the populations, and teach no type.",
            key,
            f"{len(labels) - n_labelled:,}",
            f"{len(labels):,}",
        )


def name_found(names: Names, data: TrainingData, populations: NDArray[np.int64], run_dir: Path, *, seed: int) -> Named:
    """Name populations and types; marker scores go to the run folder.

    Parameters
    ----------
    names
        What there is to name them by.
    data
        The training cells.
    populations
        (n,) in [0, K), every number used.
    run_dir
        Folder of the run; must exist.
    seed
        Of the genes that marker genes are compared with.
    """
    described, types = name_populations(populations, names.labels, ontology_ids=names.ontology_ids)
    if names.markers is None:
        return Named(described, types)
    found = score_populations(data, populations, names.markers, seed=seed)
    described = apply_marker_names(described, found)
    (run_dir / RUN_FILES.marker_scores).write_text(format_scores(described, found), encoding="utf-8")
    return Named(described, list_types(described, names.ontology_ids or {}), describe_scores(described, found))


def read_ontology_ids(table: Path, *, species: str = "unknown") -> dict[str, str]:
    """Read a table with the columns `name` and `id`.

    Parameters
    ----------
    table
        CSV or TSV.
    species
        Binomial name of the cells' species, which decides on ids of species' own ontologies.

    Raises
    ------
    InputError
        See `scrcl_infer.tables.read_table`; or ids are malformed or ruled out, or a name has several.
    """
    found: dict[str, str] = {}
    problems = []
    for row in read_table(table, ("name", "id")):
        problem = find_problem(row["id"], species)
        if not problem and found.setdefault(row["name"], row["id"]) != row["id"]:
            problem = f"the ids {found[row['name']]} and {row['id']}"
        if problem:
            problems.append(f"{row['name']!r}: {problem}")
    if problems:
        msg = f"{table}: {'; '.join(problems)}."
        raise InputError(msg)
    return found


def find_ontology_ids(path: Path, data: TrainingData, labels: NDArray[np.object_]) -> dict[str, str]:
    """Return the ids of those labels whose cells all have the same one in `obs['cell_type_ontology_term_id']`.

    Parameters
    ----------
    path
        The training file.
    data
        The cells used of it.
    labels
        (n,) of the finest level.
    """
    with H5ad(path) as source:
        if ONTOLOGY_COLUMN not in source.obs_keys():
            return {}
        terms = np.array([str(term) for term in source.obs_column(ONTOLOGY_COLUMN)], dtype=object)[data.rows]
    found = {}
    for name in compute_types(labels):
        usable = {term for term in set(terms[labels == name]) if not find_problem(term, data.species)}
        if len(usable) == 1:
            found[name] = usable.pop()
    logger.info("Ontology ids of %d types are taken from obs['%s'].", len(found), ONTOLOGY_COLUMN)
    return found


def _report_ids(ids: Mapping[str, str], names: Iterable[str], options: TrainOptions) -> None:
    """Say which ids name nothing, and which names have no id; silent where no ids were asked for or found."""
    if not ids:
        return
    known = dict.fromkeys(names)
    if strangers := [name for name in ids if name not in known]:
        logger.warning("%s: no type or level is called %s.", options.ontology_ids, ", ".join(strangers))
    if bare := [name for name in known if name not in ids]:
        logger.warning("No ontology id is known for %s: they are written as 'unknown'.", ", ".join(bare))
