"""The labelled data sets: where they lie, their label and batch columns, and how they are read."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scrcl_infer.errors import InputError

LABEL_KEY = "cell_type1"


@dataclass(frozen=True)
class DataSet:
    """One labelled file of the data folder."""

    name: str
    """File name without `.h5ad`."""
    label_key: str = LABEL_KEY
    batch_key: str | None = None
    is_log: bool = field(default=False, repr=False)
    """Holds logarithms, which are taken back by expm1."""

    def key(self) -> dict[str, str]:
        """Return what of the data decides an answer: part of the cache key."""
        taken_back = {"log": "taken back"} if self.is_log else {}
        return {"data": fingerprint(data_folder() / f"{self.name}.h5ad"), "label_key": self.label_key, **taken_back}

    def load(self) -> Labelled:
        """Read the set; see `load_set`."""
        return load_set(self)


@dataclass(frozen=True)
class Cells:
    """What a method may see of a data set: everything but the labels."""

    name: str
    counts: sp.csr_matrix
    """(n, g) float32, raw counts."""
    genes: NDArray[np.object_]
    """(g,) names."""
    batch: NDArray[np.object_] | None
    """(n,) batch of each cell; the clustering benchmark keeps it from every method."""
    spatial: NDArray[np.float64] | None
    """(n, 2) place of each spot, spatial sets only."""
    n_types: int
    """Number of label values: the K of the columns 'K given'."""
    fingerprint: str
    """First 16 hexadecimal digits of the file's sha256."""


@dataclass(frozen=True)
class Labelled:
    """A data set and its labels, which go to the scores only."""

    cells: Cells
    labels: NDArray[np.object_]
    """(n,) label; cells without one have been left out."""


DEVELOPMENT = (
    DataSet("pbmc3k"),
    DataSet("MCA_Spleen"),
    DataSet("MCA_Lung1"),
    DataSet("MCA_Lung3"),
    DataSet("Baron_mouse", batch_key="batch"),
    DataSet("10X_PBMC_top2000"),
    DataSet("worm_neuron_cell"),
    DataSet("scmix_sc_celseq2_5cl", batch_key="batch"),
    DataSet("Zheng_FACS_800"),
    DataSet("human_kidney_Young_top2000"),
    DataSet("Kang_PBMC_8k", batch_key="sample_id"),
)
"""The eleven scRNA-seq sets that the default preset was developed on."""

NINE = tuple(item.name for item in DEVELOPMENT[:9])
"""The nine of them whose means over six starts of the simple methods were known beforehand."""

FURTHER = (
    DataSet("CellBench_3cl_895"),
    DataSet("panc8_small", batch_key="tech"),
    DataSet("symphony_pbmc1200", batch_key="donor", is_log=True),
    DataSet("Xin_pancreas674_lognorm", is_log=True),
    DataSet("Wang_pancreas501_lognorm", is_log=True),
)
"""Five small ones of 219 to 2,000 genes, three of them of logarithms only."""

SPATIAL = (
    DataSet("DLPFC_151673", label_key="ground_truth"),
    DataSet("DLPFC_151674", label_key="ground_truth"),
    DataSet("STARmap_mPFC_BZ5", label_key="ground_truth"),
    DataSet("STARmap_mPFC_BZ9", label_key="ground_truth"),
)
"""The tissue sections, with their annotated domains."""


def data_folder() -> Path:
    """Return the folder named by SCRCL_DATA, else `../shared/data`.

    Raises
    ------
    InputError
        There is no such folder.
    """
    folder = Path(os.environ.get("SCRCL_DATA", "../shared/data")).resolve()
    if not folder.is_dir():
        msg = f"There is no data folder {folder}. Set SCRCL_DATA to the folder with the labelled .h5ad files."
        raise InputError(msg)
    return folder


def choose_sets(names: str, group: tuple[DataSet, ...]) -> tuple[DataSet, ...]:
    """Turn the option `--sets` into data sets.

    Parameters
    ----------
    names
        'all' (the benchmark's own list), 'nine', or file names without ending, separated by commas. A file outside the
        list is taken with the list's label column.
    group
        The benchmark's own list.

    Raises
    ------
    InputError
        A file is not in the data folder.
    """
    listed = {item.name: item for item in group}
    wanted = {"all": tuple(listed), "nine": NINE}.get(names) or tuple(n.strip() for n in names.split(",") if n.strip())
    chosen = tuple(listed.get(name, DataSet(name, group[0].label_key)) for name in wanted)
    folder = data_folder()
    missing = [item.name for item in chosen if not (folder / f"{item.name}.h5ad").is_file()]
    if missing:
        there = ", ".join(sorted(p.stem for p in folder.glob("*.h5ad"))) or "no .h5ad file"
        msg = f"{folder} holds no {', '.join(missing)}. It holds: {there}."
        raise InputError(msg)
    return chosen


@lru_cache(maxsize=2)
def load_set(item: DataSet) -> Labelled:
    """Read a data set; cells without a label are left out, as no score could be given for them.

    Raises
    ------
    InputError
        The label column is absent, or the matrix holds no counts.
    """
    import anndata

    path = data_folder() / f"{item.name}.h5ad"
    adata = anndata.read_h5ad(path)
    if item.label_key not in adata.obs:
        msg = f"{path} has no label column {item.label_key!r}; its columns are {', '.join(adata.obs.columns)}."
        raise InputError(msg)
    adata = adata[adata.obs[item.label_key].notna().to_numpy()]
    counts = sp.csr_matrix(adata.X, dtype=np.float32)
    if counts.nnz and counts.data.min() < 0:
        msg = f"{path} holds negative values; the benchmark needs counts."
        raise InputError(msg)
    if item.is_log:
        counts.data = np.expm1(counts.data)
    labels = adata.obs[item.label_key].astype(str).to_numpy(dtype=object)
    batch = adata.obs[item.batch_key].astype(str).to_numpy(dtype=object) if item.batch_key else None
    spatial = np.asarray(adata.obsm["spatial"], dtype=np.float64) if "spatial" in adata.obsm else None
    genes = adata.var_names.to_numpy(dtype=object)
    cells = Cells(item.name, counts, genes, batch, spatial, len(set(labels)), fingerprint(path))
    return Labelled(cells, labels)


@lru_cache(maxsize=64)
def fingerprint(path: Path) -> str:
    """Return the first 16 hexadecimal digits of a file's sha256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
