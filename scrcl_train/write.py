"""A copy of the training data with what was found in it. The input is never changed."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scrcl_infer.assign import type_of_population
from scrcl_infer.atomic import HiddenFile, output_errors
from scrcl_infer.contract import UNKNOWN
from scrcl_infer.earlier import COLUMNS_KEY, TRAINED_KEY, drop_stale
from scrcl_infer.target import DEFAULT_PREFIX, SLOTS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scrcl_infer.contract import Manifest
    from scrcl_infer.result import InputState

logger = logging.getLogger(__name__)
POPULATION = f"{DEFAULT_PREFIX}population"
CELL_TYPE = f"{DEFAULT_PREFIX}cell_type"
DATA_KEY = "data_sha256"
"""In `uns['scrcl']`: checksum of the file trained on."""
CELLS_KEY = "population_cells"
"""In `uns['scrcl']`: cells of each population, by which the bundle of the same run is known, whatever its name."""


@dataclass(frozen=True)
class TrainingAnswers:
    """What was found for the training cells (n cells, a subset of the file's rows)."""

    rows: NDArray[np.int64]
    """(n,) rows of the file."""
    populations: NDArray[np.int64]
    """(n,) index into the manifest's populations."""
    types: NDArray[np.int64] | None
    """(n,) index into the manifest's types, as the type head answers; None where types follow from populations."""
    embedding: NDArray[np.float32]
    """(n, D) of the teacher."""
    map: NDArray[np.float32]
    """(n, 2)"""


def write_training_h5ad(
    source: Path,
    target: Path,
    answers: TrainingAnswers,
    manifest: Manifest,
    *,
    matrix: tuple[str, InputState] = ("X", "auto"),
    force: bool = False,
) -> None:
    """Write a copy of `source` with `obs` population, type and levels, `obsm` embedding and map, and `uns['scrcl']`.

    Columns that an earlier run wrote, e.g. the confidences of another model's answers, are left out.

    Types are what the new model answers for its training cells: by its type head, else by their populations.

    A row that was not trained on, because it holds no counts, is 'unknown' with an embedding of zeros and no place on
    the map (NaN), as in assigning.

    Parameters
    ----------
    source
        The `.h5ad` trained on.
    target
        The copy; complete or not there at all.
    answers
        What was found.
    manifest
        Names of populations and their types.
    matrix
        Which matrix was trained on, and as what it was asked to be read; kept in `uns`, for whoever reads it again.
    force
        Replace an existing target.
    """
    import anndata as ad
    import pandas as pd

    adata = ad.read_h5ad(source)
    columns = _named_columns(answers, manifest)
    if stale := drop_stale(adata, columns):
        logger.warning("%s leaves out what an earlier run wrote: %s.", target, ", ".join(f"obs/{key}" for key in stale))
    for key, (values, codes) in columns.items():
        column = np.full(adata.n_obs, UNKNOWN, dtype=object)
        column[answers.rows] = np.array(values, dtype=object)[codes]
        occurring = set(column)
        categories = [name for name in dict.fromkeys([*values, UNKNOWN]) if name in occurring]
        adata.obs[key] = pd.Categorical(column, categories=categories)
    for key, found, empty in ((SLOTS.embedding, answers.embedding, 0.0), (SLOTS.map, answers.map, np.nan)):
        full = np.full((adata.n_obs, found.shape[1]), empty, dtype=np.float32)
        full[answers.rows] = found
        adata.obsm[key] = full
    adata.uns[SLOTS.uns] = _describe(manifest, matrix, list(columns))
    with HiddenFile(target, force=force) as hidden, output_errors(target):
        adata.write_h5ad(hidden.path, compression="gzip")
        hidden.commit()


def _describe(manifest: Manifest, matrix: tuple[str, InputState], columns: list[str]) -> dict[str, object]:
    """Return what was trained on and how, and the columns of `obs` that hold what was found."""
    return {
        "model": manifest.name,
        TRAINED_KEY: manifest.provenance.preset,
        "seed": manifest.provenance.seed,
        "matrix": matrix[0],
        "input_state": matrix[1],
        "cell_types": [cell_type.name for cell_type in manifest.cell_types],
        DATA_KEY: manifest.provenance.data_sha256,
        CELLS_KEY: {population.name: population.n_cells for population in manifest.populations},
        COLUMNS_KEY: columns,
    }


def _named_columns(
    answers: TrainingAnswers, manifest: Manifest
) -> dict[str, tuple[list[str], NDArray[np.int64] | NDArray[np.int32]]]:
    """Return names and codes (n,) of the columns of `obs`: populations, types and levels."""
    types = answers.types if answers.types is not None else type_of_population(manifest)[answers.populations]
    return {
        POPULATION: ([p.name for p in manifest.populations], answers.populations),
        CELL_TYPE: ([cell_type.name for cell_type in manifest.cell_types], types),
        **{DEFAULT_PREFIX + level.key: (list(level.names), types) for level in manifest.levels},
    }
