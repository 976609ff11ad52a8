"""Train on one, map another: the pairs of the transfer benchmark."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from benchmarks.datasets import DataSet, Labelled, data_folder, fingerprint, load_set
from scrcl_infer.errors import InputError


@dataclass(frozen=True)
class Transfer:
    """What a method may see of a pair: the reference with its labels, the query without."""

    name: str
    counts: sp.csr_matrix
    """(n, g) float32 of the reference; log values where `is_log`."""
    genes: NDArray[np.object_]
    labels: NDArray[np.object_]
    """(n,) of the reference, in the query's vocabulary."""
    query_counts: sp.csr_matrix
    """(m, h) float32."""
    query_genes: NDArray[np.object_]
    n_types: int
    """Types that both sides have."""
    is_log: bool
    fingerprint: str
    places: NDArray[np.float64] | None = None
    """(n, 2) of the reference's spots, for pairs of tissue sections."""
    query_places: NDArray[np.float64] | None = None
    """(m, 2)"""


@dataclass(frozen=True)
class LabelledTransfer:
    """A pair and the query's labels, which go to the scores only."""

    cells: Transfer
    labels: NDArray[np.object_]


@dataclass(frozen=True)
class Pair:
    """A reference and a query: two files, or batches of one."""

    name: str
    reference: DataSet
    query: DataSet
    batches: tuple[str, ...] = ()
    """Batches of the file that are the reference (or, with `turned`, the query); the others are the other side."""
    turned: bool = False
    label_map: tuple[tuple[str, str], ...] = ()
    """Reference label -> label of the query's vocabulary."""
    is_log: bool = False
    sections: bool = field(default=False, repr=False)
    """Tissue sections, whose spots come with their places."""

    def key(self) -> dict[str, str]:
        """Return what of the data decides an answer."""
        folder = data_folder()
        prints = [fingerprint(folder / f"{item.name}.h5ad") for item in (self.reference, self.query)]
        return {"data": "+".join(prints), "pair": repr(self)} | ({"places": "seen"} if self.sections else {})

    def load(self) -> LabelledTransfer:
        """Read both sides."""
        first, second = load_set(self.reference), load_set(self.query)
        rows, others = np.arange(len(first.labels)), np.arange(len(second.labels))
        if self.batches and first.cells.batch is not None:
            inside = np.isin(first.cells.batch, self.batches)
            rows, others = (np.flatnonzero(inside), np.flatnonzero(~inside))[:: -1 if self.turned else 1]
        names = dict(self.label_map)
        labels = np.array([names.get(x, x) for x in first.labels[rows]], dtype=object)
        shared = set(labels) & set(second.labels[others])
        counts, genes = _side(first, rows)
        query_counts, query_genes = _side(second, others)
        cells = Transfer(
            self.name,
            counts,
            genes,
            labels,
            query_counts,
            query_genes,
            len(shared),
            self.is_log,
            "+".join([self.key()["data"], self.name]),
            _places(first, rows) if self.sections else None,
            _places(second, others) if self.sections else None,
        )
        return LabelledTransfer(cells, second.labels[others])


def _side(data: Labelled, rows: NDArray[np.int64]) -> tuple[sp.csr_matrix, NDArray[np.object_]]:
    _, first = np.unique(data.cells.genes.astype(str), return_index=True)
    keep = np.sort(first)
    return sp.csr_matrix(data.cells.counts[rows][:, keep]), data.cells.genes[keep]


def _places(data: Labelled, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    if data.cells.spatial is None:
        msg = f"{data.cells.name} has no obsm['spatial']; a pair of tissue sections needs the places of the spots."
        raise InputError(msg)
    return data.cells.spatial[rows]


LUNG_1, LUNG_3, KANG = DataSet("MCA_Lung1"), DataSet("MCA_Lung3"), DataSet("Kang_PBMC_8k", batch_key="sample_id")
BARON, PANC8 = DataSet("Baron_mouse", batch_key="batch"), DataSet("panc8_small", batch_key="tech")
SECTION_1, SECTION_2 = DataSet("DLPFC_151673"), DataSet("DLPFC_151674")
PBMC_TO_SORTED = (
    ("B", "B cells"),
    ("Naive CD4 T", "CD4 T cells"),
    ("Memory CD4 T", "CD4 T cells"),
    ("CD8 T", "CD8 T cells"),
)

PLACES_UNSEEN = "DLPFC 151673 to 151674, places unseen"
"""The same cells as the pair before, for which ours is not told where the spots lie either."""
PAIRS = (
    Pair("lung 1 to 3", LUNG_1, LUNG_3),
    Pair("lung 3 to 1", LUNG_3, LUNG_1),
    Pair("Kang, 2 donors to the rest", KANG, KANG, batches=("1015", "1016")),
    Pair("Baron mouse 1 to 2", BARON, BARON, batches=("mouse1",)),
    Pair("Baron mouse 2 to 1", BARON, BARON, batches=("mouse2",)),
    Pair("scmix to CellBench", DataSet("scmix_sc_celseq2_5cl"), DataSet("CellBench_3cl_895")),
    Pair("pbmc3k to Zheng", DataSet("pbmc3k"), DataSet("Zheng_FACS_800"), label_map=PBMC_TO_SORTED),
    *(
        Pair(f"panc8, all but {tech}", PANC8, PANC8, batches=(tech,), turned=True)
        for tech in ("celseq", "celseq2", "fluidigmc1", "indrop", "smartseq2")
    ),
    Pair("Xin to Wang (log)", DataSet("Xin_pancreas674_lognorm"), DataSet("Wang_pancreas501_lognorm"), is_log=True),
    Pair("DLPFC 151673 to 151674", SECTION_1, SECTION_2, sections=True),
    Pair(PLACES_UNSEEN, SECTION_1, SECTION_2),
)


def choose_pairs(names: str, pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
    """Turn the option `--sets` into pairs: 'all', or parts of names, with ';' between them.

    Raises
    ------
    InputError
        Nothing matches; the text lists the pairs.
    """
    if names == "all":
        return pairs
    wanted = [part.strip().lower() for part in names.split(";") if part.strip()]
    chosen = tuple(pair for pair in pairs if any(part in pair.name.lower() for part in wanted))
    if not chosen:
        msg = f"No pair is called {names!r}. Pairs: {'; '.join(pair.name for pair in pairs)}."
        raise InputError(msg)
    return chosen
