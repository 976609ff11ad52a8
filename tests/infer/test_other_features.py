"""Columns that are no genes, such as antibodies: what they hold does not matter."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scrcl_infer.errors import MatrixError
from scrcl_infer.pipeline import Model
from scrcl_infer.result import AssignOptions
from tests.infer.test_pipeline import query, same
from tests.make_bundle import tiny_bundle


@pytest.mark.parametrize("encoding", ["dense", "csr", "csc"])
@pytest.mark.parametrize("logged", [False, True])
def test_values_of_other_features_may_be_anything(*, encoding: str, logged: bool) -> None:
    model, genes = Model(tiny_bundle(), sha256="", threads=1), query(30)
    counts = genes.X.toarray()
    if logged:
        counts = np.log1p(counts * (1e4 / np.maximum(counts.sum(axis=1, keepdims=True), 1)))
    antibodies = np.tile([-2.5, 0.0, 900.0, np.nan], (30, 1))
    kinds = pd.DataFrame({"feature_types": ["Gene Expression"] * genes.n_vars + ["Antibody Capture"] * 4})
    kinds.index = [*genes.var_names, *(f"CD{i}" for i in range(4))]
    both = np.hstack([counts, antibodies]).astype(np.float32)
    make = {"dense": np.asarray, "csr": sp.csr_matrix, "csc": sp.csc_matrix}[encoding]
    adata = ad.AnnData(make(both), obs=genes.obs.copy(), var=kinds)
    same(model.assign(adata), model.assign(ad.AnnData(make(counts.astype(np.float32)), obs=genes.obs, var=genes.var)))
    adata.X[2, 0] = -1
    with pytest.raises(MatrixError, match="-1 for cell 'cell2'"):
        model.assign(adata, options=AssignOptions(layer="X", input_state="counts"))
