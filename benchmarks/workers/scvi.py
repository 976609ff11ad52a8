"""Fit scVI to a folder's `counts.npy` and write `latent.npy`; runs in scvi-tools' environment."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import anndata
import numpy as np


def main(folder: Path) -> None:
    """Fit with the defaults; write (n, n_latent) float32."""
    import scvi  # type: ignore[import-not-found, unused-ignore]

    settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    scvi.settings.seed = settings["seed"]
    adata = anndata.AnnData(np.load(folder / "counts.npy", allow_pickle=False))
    scvi.model.SCVI.setup_anndata(adata)
    model = scvi.model.SCVI(adata, n_latent=settings["n_latent"])
    model.train(enable_progress_bar=False, accelerator="cpu")
    np.save(folder / "latent.npy", np.asarray(model.get_latent_representation(), dtype=np.float32))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
