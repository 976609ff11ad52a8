"""Train CellTypist on a folder's `reference.npz`, answer for `query0.npz`, ...; runs in an environment of its own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp


def read_cells(path: Path, *, is_log: bool) -> tuple[Any, Any]:
    """Return an AnnData of log1p of counts per ten thousand and the labels, if any; logarithms are undone before."""
    import anndata
    import scanpy as sc

    with np.load(path, allow_pickle=False) as stored:
        matrix = sp.csr_matrix((stored["data"], stored["indices"], stored["indptr"]), shape=tuple(stored["shape"]))
        genes, labels = stored["genes"], stored.get("labels")
    adata = anndata.AnnData(matrix.astype(np.float32))
    adata.var_names = genes
    if is_log:  # CellTypist refuses other log values
        adata.X.data = np.expm1(adata.X.data)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return adata, labels


def main(folder: Path) -> None:
    """Train with the defaults; write `answers0.npz`, ... with `types` and `confidence`."""
    os.environ["CELLTYPIST_FOLDER"] = str(folder / "celltypist")  # else it makes one in the user's home
    import celltypist  # type: ignore[import-not-found, unused-ignore]

    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    is_log = bool(settings["is_log"])
    reference, labels = read_cells(folder / "reference.npz", is_log=is_log)
    model = celltypist.train(reference, labels=labels)
    for number in range(settings["queries"]):
        query, _ = read_cells(folder / f"query{number}.npz", is_log=is_log)
        found = celltypist.annotate(query, model=model, majority_voting=False)
        types = found.predicted_labels["predicted_labels"].to_numpy().astype(np.str_)
        confidence = found.probability_matrix.to_numpy().max(axis=1)
        np.savez(folder / f"answers{number}.npz", types=types, confidence=confidence.astype(np.float64))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
