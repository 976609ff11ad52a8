"""ScRCL as a learner of types: trained with labels, and without them on populations that are named afterwards."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from benchmarks.exchange import Query
from benchmarks.pairs import Transfer

if TYPE_CHECKING:
    from scrcl_infer import Model
    from scrcl_infer.contract import Bundle
    from scrcl_train.data import TrainingData
    from scrcl_train.options import TrainOptions
    from scrcl_train.pipeline import Found

LABEL_KEY = "label"
LABELLED, UNLABELLED = "ours-labels", "ours"
N_NAMED = 60
"""Populations asked for where they are to be named afterwards: what is not apart cannot be named apart."""


@dataclass(frozen=True)
class Learned:
    """A trained model that knows types."""

    model: Model

    def answer(self, query: Query) -> NDArray[np.object_]:
        """Return types and confidences (2, m); nothing is rejected, and no query refused for its missing genes."""
        from scrcl_infer import AssignOptions

        told = AssignOptions(reject=False, min_overlap=0.0)
        found = self.model.assign(make_adata(query.counts, query.genes, query.places), options=told)
        return np.stack([found.cell_type.astype(object), found.confidence.astype(object)])


@dataclass(frozen=True)
class Search:
    """What `scrcl_train` finds in the reference without labels."""

    data: TrainingData
    options: TrainOptions
    found: Found


def search(cells: Transfer, seed: int, folder: Path, *, n_populations: int | None = None) -> Search:
    """Fit the teacher and find the populations, as training does; `folder` takes the file and the run."""
    import pandas as pd

    from scrcl_train import pipeline
    from scrcl_train.data import read_training_data
    from scrcl_train.options import TrainOptions
    from scrcl_train.presets import get_preset
    from scrcl_train.progress import TrainProgress

    path, run_dir = folder / "reference.h5ad", folder / "run"
    run_dir.mkdir(parents=True)
    reference = make_adata(cells.counts, cells.genes, cells.places)
    reference.obs[LABEL_KEY] = pd.Categorical(cells.labels.astype(str))
    reference.write_h5ad(path)
    config = get_preset("default" if cells.places is None else "spatial")
    options = TrainOptions(config, seed=seed, n_populations=n_populations)
    data = read_training_data(path, spatial=config.spatial)
    return Search(data, options, pipeline._find_populations(data, options, run_dir, TrainProgress()))


def learn_ours(cells: Transfer, seed: int, kinds: Sequence[str] = (LABELLED, UNLABELLED)) -> dict[str, Learned]:
    """Train on the reference, write a bundle for each kind and load it through `scrcl_infer`.

    Returns
    -------
    Kind -> model. The result is that of `scrcl_train.pipeline.train` with `label_keys`; and without, asked for
    `N_NAMED` populations, or for tissue sections for as many domains as there are by its own estimate.
    """
    from scrcl_infer import load
    from scrcl_infer.bundle import write_bundle
    from scrcl_train import pipeline
    from scrcl_train.names import name_found, read_names
    from scrcl_train.progress import TrainProgress

    learned = {}
    with tempfile.TemporaryDirectory() as temporary:
        for kind in kinds:
            folder = Path(temporary) / kind
            start = search(
                cells, seed, folder, n_populations=N_NAMED if kind == UNLABELLED and cells.places is None else None
            )
            options = replace(start.options, label_keys=(LABEL_KEY,) if kind == LABELLED else ())
            names = read_names(folder / "reference.h5ad", start.data, options)
            named = name_found(names, start.data, start.found.populations.labels, folder / "run", seed=seed)
            bundle, _ = pipeline._teach_student(
                start.data, start.found, (names, named), options=options, name=kind, progress=TrainProgress()
            )
            if kind == UNLABELLED:
                write_bundle(bundle, folder / "unnamed")
                bundle = name_by_majority(bundle, load(folder / "unnamed"), cells)
            write_bundle(bundle, folder / "bundle")
            learned[kind] = Learned(load(folder / "bundle"))
    return learned


def name_by_majority(bundle: Bundle, model: Model, cells: Transfer) -> Bundle:
    """Give each population the most frequent label of the reference cells assigned to it, as `scrcl-models name` does.

    Populations of one name answer together: their probabilities add up.
    """
    import pandas as pd

    from scrcl_infer import AssignOptions
    from scrcl_infer.rename import NameTable, rename

    own_cells = make_adata(cells.counts, cells.genes, cells.places)
    found = model.assign(own_cells, options=AssignOptions(reject=False))
    own = pd.DataFrame({"population": found.population, "label": cells.labels})
    names: dict[str, str] = own.groupby("population")["label"].agg(lambda x: x.value_counts().index[0]).to_dict()
    names.pop("unknown", None)  # a cell without counts
    return rename(bundle, NameTable("population", names, {}), sha256="", name="named")[0]


def make_adata(counts: sp.csr_matrix, genes: NDArray[np.object_], places: NDArray[np.float64] | None = None) -> Any:  # noqa: ANN401 - an AnnData, untyped
    """Return an AnnData with cells named c0, c1, ..., and the places of spots."""
    import anndata
    import pandas as pd

    adata = anndata.AnnData(counts.copy(), obs=pd.DataFrame(index=[f"c{i}" for i in range(counts.shape[0])]))
    adata.var_names = genes.astype(str)
    if places is not None:
        adata.obsm["spatial"] = places
    return adata
