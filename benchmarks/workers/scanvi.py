"""Train scANVI on `reference.npz` of a folder and answer for `query0.npz`; runs in scvi-tools' environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

NO_LABEL = "no label"


def read_cells(path: Path) -> tuple[Any, Any]:
    """Return an AnnData of counts and the labels, if any."""
    import anndata

    with np.load(path, allow_pickle=False) as stored:
        matrix = sp.csr_matrix((stored["data"], stored["indices"], stored["indptr"]), shape=tuple(stored["shape"]))
        genes, labels = stored["genes"], stored.get("labels")
    adata = anndata.AnnData(matrix.astype(np.float32))
    adata.var_names = genes
    return adata, labels


def choose_genes(reference: Any, query: Any, n_genes: int) -> list[str]:  # noqa: ANN401 - AnnData, untyped
    """Return the reference's most variable genes among those that the query has, too."""
    import scanpy as sc

    shared = sorted(set(reference.var_names) & set(query.var_names))
    logged = reference[:, shared].copy()
    sc.pp.normalize_total(logged, target_sum=1e4)
    sc.pp.log1p(logged)
    sc.pp.filter_genes(logged, min_cells=3)
    sc.pp.highly_variable_genes(logged, n_top_genes=min(n_genes, logged.n_vars), flavor="seurat")
    return list(logged.var_names[logged.var["highly_variable"]])


def main(folder: Path) -> None:
    """Train and map as the tutorials of scvi-tools do; write `answers0.npz` with `types` and `confidence`."""
    import scvi  # type: ignore[import-not-found, unused-ignore]

    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    scvi.settings.seed = settings["seed"]
    (reference, labels), (query, _) = read_cells(folder / "reference.npz"), read_cells(folder / "query0.npz")
    genes = choose_genes(reference, query, settings["hvgs"])
    reference, query = reference[:, genes].copy(), query[:, genes].copy()
    reference.obs["label"], query.obs["label"] = labels, NO_LABEL
    reference.obs["batch"], query.obs["batch"] = "reference", "query"
    scvi.model.SCVI.setup_anndata(reference, batch_key="batch", labels_key="label")
    base = scvi.model.SCVI(reference)
    base.train(enable_progress_bar=False, accelerator="cpu")
    model = scvi.model.SCANVI.from_scvi_model(base, unlabeled_category=NO_LABEL)
    model.train(enable_progress_bar=False, accelerator="cpu")
    mapped = scvi.model.SCANVI.load_query_data(query, model)
    mapped.train(
        max_epochs=settings["query_epochs"],
        plan_kwargs={"weight_decay": 0.0},
        enable_progress_bar=False,
        accelerator="cpu",
    )
    soft = mapped.predict(soft=True)
    types = soft.columns.to_numpy()[soft.to_numpy().argmax(axis=1)].astype(np.str_)
    confidence = soft.to_numpy().max(axis=1).astype(np.float64)
    np.savez(folder / "answers0.npz", types=types, confidence=confidence)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
