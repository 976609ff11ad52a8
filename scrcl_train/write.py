"""A copy of the training data with what was found in it. The input is never changed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scrcl_infer.contract import UNKNOWN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scrcl_infer.contract import Manifest

POPULATION = "scrcl_population"
CELL_TYPE = "scrcl_cell_type"
EMBEDDING = "X_scrcl"
MAP = "X_scrcl_map"


@dataclass(frozen=True)
class TrainingAnswers:
    """What was found for the training cells (n cells, a subset of the file's rows)."""

    rows: NDArray[np.int64]
    """(n,) rows of the file."""
    populations: NDArray[np.int64]
    """(n,) index into the manifest's populations."""
    embedding: NDArray[np.float32]
    """(n, D) of the teacher."""
    map: NDArray[np.float32]
    """(n, 2)"""


def write_training_h5ad(source: Path, target: Path, answers: TrainingAnswers, manifest: Manifest) -> None:
    """Write a copy of `source` with `obs` population and type, `obsm` embedding and map, and `uns['scrcl']`.

    A row that was not trained on, because it holds no counts, is 'unknown' with an embedding of zeros.

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
    """
    import anndata as ad
    import pandas as pd

    adata = ad.read_h5ad(source)
    names = [p.name for p in manifest.populations]
    types = [p.cell_type for p in manifest.populations]
    for key, values in ((POPULATION, names), (CELL_TYPE, types)):
        column = np.full(adata.n_obs, UNKNOWN, dtype=object)
        column[answers.rows] = np.array(values, dtype=object)[answers.populations]
        categories = list(dict.fromkeys(values)) + ([UNKNOWN] if len(answers.rows) < adata.n_obs else [])
        adata.obs[key] = pd.Categorical(column, categories=categories)
    for key, matrix in ((EMBEDDING, answers.embedding), (MAP, answers.map)):
        full = np.zeros((adata.n_obs, matrix.shape[1]), dtype=np.float32)
        full[answers.rows] = matrix
        adata.obsm[key] = full
    adata.uns["scrcl"] = {
        "model": manifest.name,
        "preset": manifest.provenance.preset,
        "seed": manifest.provenance.seed,
    }
    hidden = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        adata.write_h5ad(hidden, compression="gzip")
        hidden.replace(target)
    finally:
        hidden.unlink(missing_ok=True)
