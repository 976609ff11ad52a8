"""The file that a training run leaves behind: reading it again, and telling whether a bundle is of the same run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scrcl_infer.contract import Bundle, Manifest
from scrcl_infer.errors import InputError
from scrcl_infer.target import SLOTS
from scrcl_train.write import CELL_TYPE, CELLS_KEY, DATA_KEY, POPULATION

if TYPE_CHECKING:
    from anndata import AnnData

EMBEDDING, MAP = SLOTS.embedding, SLOTS.map
TARGET_SUM = 10_000.0
MOST_NAMED = 5
"""Populations that an error lists."""


def read_run(path: Path, gene_column: str | None = None) -> AnnData:
    """Read what a training run wrote.

    Returns
    -------
    AnnData
        X (n, g) float32 CSR log1p of counts per ten thousand, genes with counts in three or more cells; obs
        `scrcl_population` and `scrcl_cell_type` (categorical); obsm `X_scrcl` and, where there, `X_scrcl_map`; what
        the run wrote into uns['scrcl'].

    Raises
    ------
    InputError
        A column or the embedding is not there.
    """
    import anndata
    import pandas as pd

    from scrcl_train.data import read_training_data
    from scrcl_train.figures import order_names

    stored = anndata.read_h5ad(path, backed="r")
    try:
        about = stored.uns.get(SLOTS.uns, {})
        layer, state = about.get("matrix"), about.get("input_state", "auto")
        data = read_training_data(path, layer=layer, state=state, gene_column=gene_column)
        if POPULATION not in stored.obs or EMBEDDING not in stored.obsm:
            msg = (
                f"{path} has no obs['{POPULATION}'] or no obsm['{EMBEDDING}']. Pass the file that "
                "`scrcl-train ... --write-h5ad FILE` wrote."
            )
            raise InputError(msg)
        frame, maps, rows = stored.obs, stored.obsm, data.rows  # cells without counts have no population
        obs = {name: frame[name].astype(str).to_numpy()[rows] for name in (POPULATION, CELL_TYPE) if name in frame}
        places = {name: np.asarray(maps[name], np.float32)[rows] for name in (EMBEDDING, MAP) if name in maps}
        cells = frame.index[rows].astype(str)
    finally:
        stored.file.close()
    expression = data.counts.copy()
    scale = (TARGET_SUM / np.maximum(data.library_size, 1)).astype(np.float32)
    expression.data = np.log1p(expression.data * np.repeat(scale, np.diff(expression.indptr)))
    keep = expression.getnnz(axis=0) >= 3
    adata = anndata.AnnData(expression[:, keep], obs=pd.DataFrame(obs, index=cells), obsm=places)
    adata.var_names = np.asarray(data.gene_names, dtype=object)[keep].astype(str)
    adata.var_names_make_unique()
    for name, values in obs.items():
        adata.obs[name] = pd.Categorical(values, categories=order_names(set(values)))
    # scanpy asks for this note before it believes that the values are logarithms.
    adata.uns["log1p"] = {}
    adata.uns[SLOTS.uns] = dict(about)
    return adata


def check_same_run(adata: AnnData, bundle: Bundle, path: Path) -> None:
    """Refuse a file and a bundle of different runs; a renamed bundle is of the run that it came from.

    Parameters
    ----------
    adata
        What `read_run` returned.
    bundle
        To compare with: its training data's checksum, and the cells of each of its populations.
    path
        Of the file, for the error.

    Raises
    ------
    InputError
        The file was trained on other data, a population has another number of cells or is in one of the two only, or
        none of the bundle's genes is in the file. A file without the numbers, from before they were written or not
        from training, must hold all cells of the run.
    """
    manifest = bundle.manifest
    reasons = _list_differences(adata, manifest)
    shared = set(manifest.genes.names) & set(adata.var_names)
    if reasons or not shared:
        reasons.append(f"genes in both: {len(shared)} of {len(manifest.genes.names)}")
        msg = (
            f"{path} and the bundle '{manifest.name}' are not of the same run: {'; '.join(reasons)}. Pass the file and "
            "the bundle (or a renamed copy of it) that one `scrcl-train` wrote, and the --gene-column it was given."
        )
        raise InputError(msg)


def _list_differences(adata: AnnData, manifest: Manifest) -> list[str]:
    """Return in what the file's run and the bundle's differ, one phrase each."""
    about: Mapping[str, Any] = adata.uns[SLOTS.uns]
    there = {population.name: population.n_cells for population in manifest.populations}
    # What the run wrote down is still true of a file that was cut to some of its cells.
    counted = {**adata.obs[POPULATION].value_counts(), **about.get(CELLS_KEY, {})}
    here = {str(name): int(n) for name, n in counted.items()}
    names = [name for name in here.keys() | there.keys() if here.get(name) != there.get(name)]
    found = [f"{name} has {_say(here.get(name))} in the file, {_say(there.get(name))} in the bundle" for name in names]
    found = sorted(found)[:MOST_NAMED]
    if about.get(DATA_KEY, manifest.provenance.data_sha256) != manifest.provenance.data_sha256:
        found.insert(0, "they were trained on other data")
    return found


def _say(n_cells: int | None) -> str:
    return "no place" if n_cells is None else f"{n_cells:,} cells"
