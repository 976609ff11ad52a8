"""Counts, and what is made of them, as the matrices of an AnnData."""

from __future__ import annotations

from typing import Any

import anndata
import numpy as np

from scrcl_infer.h5ad import open_source
from scrcl_infer.matrix import choose_matrix
from scrcl_infer.result import MatrixReport

N, G = 80, 200
RNG = np.random.default_rng(0)
COUNTS = RNG.negative_binomial(0.4, 0.2, (N, G)).astype(np.float32)
SCALED = (COUNTS / COUNTS.sum(axis=1, keepdims=True) * 1e4).astype(np.float32)
LOGGED = np.log1p(SCALED)
CENTRED = (LOGGED - LOGGED.mean(axis=0)).astype(np.float32)


def choose(x: Any, *, raw: Any = None, layer: str | None = None, state: Any = "auto", **layers: Any) -> MatrixReport:
    adata = anndata.AnnData(x, layers=layers)
    if raw is not None:
        adata.raw = anndata.AnnData(raw)
    with open_source(adata) as source:
        return choose_matrix(source, layer=layer, state=state)
