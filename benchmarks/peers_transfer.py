"""Methods that learn types on one batch and answer for another: logistic regression, kNN, and scRCL."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from benchmarks.code import TRAIN_FOLDER, hash_code
from benchmarks.methods import Column, Method, Outcome
from benchmarks.pairs import Transfer

N_HVGS = 2000
N_PCS = 30
N_NEIGHBORS = 15
MAX_VALUE = 10.0
PACKAGES = ("anndata", "numpy", "onnxruntime", "scanpy", "scikit-learn", "scipy", "torch")


@dataclass(frozen=True)
class Matrices:
    """Standardised expression of the chosen genes."""

    reference: NDArray[np.float32]
    """(n, g)"""
    query: NDArray[np.float32]
    """(m, g)"""


def prepare_matrices(cells: Transfer) -> Matrices:
    """Return log-normalised, standardised expression of the reference's 2,000 most variable shared genes."""
    import anndata
    import scanpy as sc

    shared, rows, columns = np.intersect1d(cells.genes.astype(str), cells.query_genes.astype(str), return_indices=True)
    reference = _log(cells.counts, is_log=cells.is_log)[:, rows]
    query = _log(cells.query_counts, is_log=cells.is_log)[:, columns]
    enough = np.flatnonzero(reference.getnnz(axis=0) >= 3)
    if len(enough) > N_HVGS:
        adata = anndata.AnnData(reference[:, enough])
        adata.var_names = shared[enough]
        sc.pp.highly_variable_genes(adata, n_top_genes=N_HVGS, flavor="seurat")
        enough = enough[adata.var["highly_variable"].to_numpy()]
    first, second = (np.asarray(m[:, enough].toarray(), dtype=np.float32) for m in (reference, query))
    mean, sd = first.mean(axis=0), first.std(axis=0) + 1e-8
    return Matrices(*(np.clip((m - mean) / sd, -MAX_VALUE, MAX_VALUE) for m in (first, second)))


def answer_logistic(data: Matrices, cells: Transfer, seed: int) -> NDArray[np.object_]:
    """Return types and confidences (2, m) of multinomial logistic regression."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1.0, max_iter=100, random_state=seed).fit(data.reference, cells.labels.astype(str))
    return _best(model.classes_, model.predict_proba(data.query))


def answer_nearest(data: Matrices, cells: Transfer, seed: int) -> NDArray[np.object_]:
    """Return types and confidences (2, m) by the 15 nearest reference cells (cosine, 30 PCs)."""
    from sklearn.decomposition import PCA
    from sklearn.neighbors import KNeighborsClassifier

    pca = PCA(min(N_PCS, min(data.reference.shape) - 1), random_state=seed).fit(data.reference)
    model = KNeighborsClassifier(min(N_NEIGHBORS, len(data.reference)), metric="cosine")
    model.fit(pca.transform(data.reference), cells.labels.astype(str))
    return _best(model.classes_, model.predict_proba(pca.transform(data.query)))


def answer_ours(cells: Transfer, seed: int, *, labelled: bool) -> NDArray[np.object_]:
    """Train on the reference, export, and assign the query; return types and confidences (2, m).

    Without labels each population takes the most frequent label of the reference cells assigned to it.
    """
    import pandas as pd

    from scrcl_infer import AssignOptions, load
    from scrcl_train.options import TrainOptions
    from scrcl_train.pipeline import train

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        reference = _adata(cells.counts, cells.genes)
        reference.obs["label"] = pd.Categorical(cells.labels.astype(str))
        reference.write_h5ad(folder / "reference.h5ad")
        options = TrainOptions(label_keys=("label",) if labelled else (), seed=seed)
        train(folder / "reference.h5ad", folder / "bundle", options)
        model = load(folder / "bundle")
        told = AssignOptions(reject=False)
        found = model.assign(_adata(cells.query_counts, cells.query_genes), options=told)
        types = found.cell_type
        if not labelled:
            own = pd.DataFrame({"population": model.assign(reference, options=told).population, "label": cells.labels})
            names = own.groupby("population")["label"].agg(lambda x: x.value_counts().index[0]).to_dict()
            types = np.array([names.get(name, "unknown") for name in found.population], dtype=object)
    return np.stack([types.astype(object), found.confidence.astype(object)])


def _adata(counts: sp.csr_matrix, genes: NDArray[np.object_]) -> Any:  # noqa: ANN401 - an AnnData, untyped
    import anndata
    import pandas as pd

    adata = anndata.AnnData(counts.copy(), obs=pd.DataFrame(index=[f"c{i}" for i in range(counts.shape[0])]))
    adata.var_names = genes.astype(str)
    return adata


def _log(counts: sp.csr_matrix, *, is_log: bool) -> sp.csr_matrix:
    """Log1p of counts per ten thousand over all genes of the file; log values pass through."""
    if is_log:
        return counts
    logged = counts.copy()
    totals = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1e-8)
    logged.data = np.log1p(logged.data * np.repeat((1e4 / totals).astype(np.float32), np.diff(logged.indptr)))
    return logged


def _best(classes: NDArray[Any], posterior: NDArray[np.float64]) -> NDArray[np.object_]:
    types = np.asarray(classes)[posterior.argmax(axis=1)].astype(object)
    return np.stack([types, posterior.max(axis=1).astype(object)])


def _peer(name: str, title: str, answer: Callable[[Matrices, Transfer, int], NDArray[np.object_]]) -> Method:
    return Method(
        name,
        (Column(name, title, "given"),),
        prepare_matrices,
        lambda data, cells, seed: Outcome({name: answer(data, cells, seed)}),
        settings={"hvgs": N_HVGS, "pcs": N_PCS, "neighbors": N_NEIGHBORS, "max_value": MAX_VALUE},
        packages=PACKAGES,
    )


def _ours(name: str, title: str, *, labelled: bool) -> Method:
    return Method(
        name,
        (Column(name, title, "given", is_ours=True),),
        lambda cells: None,
        lambda _, cells, seed: Outcome({name: answer_ours(cells, seed, labelled=labelled)}),
        # The whole way is run, so any module may matter.
        version="-".join(
            hash_code((path.stem for path in folder.glob("*.py")), folder)
            for folder in (TRAIN_FOLDER, TRAIN_FOLDER.with_name("scrcl_infer"))
        ),
        packages=PACKAGES,
        needs=("torch", "onnxscript"),
    )


METHODS: tuple[Method, ...] = (
    _ours("ours-labels", "scRCL, with labels", labelled=True),
    _ours("ours", "scRCL, without labels", labelled=False),
    _peer("logistic", "logistic regression", answer_logistic),
    _peer("knn", "kNN on PCs", answer_nearest),
)
