"""CellTypist from file to file, in its own environment: `learn REFERENCE.h5ad MODEL`, `answer QUERY.h5ad MODEL TYPES`.

Files hold counts; a reference's types are in `obs['cell_type']`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main(action: str, cells: str, model: str, types: str = "") -> None:
    """Bring counts to log1p of ten thousand a cell, as CellTypist wants it; train with the defaults, or assign."""
    os.environ["CELLTYPIST_FOLDER"] = str(Path(model).parent / "celltypist")  # else it makes one in the user's home
    import anndata
    import celltypist  # type: ignore[import-not-found, unused-ignore]
    import scanpy as sc

    adata = anndata.read_h5ad(cells)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    if action == "learn":
        celltypist.train(adata, labels="cell_type").write(model)
    else:
        celltypist.annotate(adata, model=model, majority_voting=False).predicted_labels.to_csv(types)


if __name__ == "__main__":
    main(*sys.argv[1:])
