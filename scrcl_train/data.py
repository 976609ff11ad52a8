"""Read training data through the same reader that assigning uses, so that both see the same counts.

Labels have a reader of their own: nothing that fits the teacher ever receives them.
"""

from __future__ import annotations

import hashlib
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from scrcl_infer.blocks import iter_csr_blocks
from scrcl_infer.encoder import available_threads
from scrcl_infer.errors import InputError
from scrcl_infer.gene_names import ENSEMBL_ID, clean_name, guess_species
from scrcl_infer.genes import find_other_features
from scrcl_infer.h5ad import H5ad
from scrcl_infer.matrix import choose_matrix, to_counts
from scrcl_infer.spatial import Spots, read_spots
from scrcl_train.recount import find_counts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scrcl_infer.result import InputState, MatrixReport

logger = logging.getLogger(__name__)

SYMBOL_COLUMNS = ("feature_name", "gene_symbols", "gene_symbol", "gene_names", "gene_name", "symbol", "Symbol")
ID_COLUMNS = ("gene_ids", "gene_id", "ensembl_id", "ensembl_ids", "feature_id", "ensembl")
MIN_CELLS = 50
MIN_GENES = 20
LABEL_HOLES = frozenset({"", "nan", "NaN", "None", "NA", "<NA>", "unassigned", "Unassigned", "unknown", "Unknown"})
"""Values of a label column that mean 'no label'."""


@dataclass(frozen=True)
class TrainingData:
    """Cells to learn from; holds no labels."""

    path: Path
    sha256: str
    counts: sp.csr_matrix
    """(n, g_all) float32, raw counts, or what stands in for them."""
    library_size: NDArray[np.float32]
    """(n,) total counts of each cell over all genes."""
    gene_names: tuple[str, ...]
    symbols: tuple[str, ...]
    """'' where the file has none."""
    ensembl_ids: tuple[str, ...]
    """Without version; '' where the file has none."""
    species: str
    obs_names: NDArray[np.object_]
    """(n,) names of the cells used."""
    rows: NDArray[np.int64]
    """(n,) rows of the file that are used: those with counts."""
    n_rows: int
    """Rows of the file."""
    matrix: MatrixReport
    are_counts: bool
    """Whether `counts` are counts, or whole multiples that were found again in logarithms: what can be drawn anew."""
    batch: NDArray[np.int64] | None
    """(n,) codes."""
    spots: Spots | None = None
    """Where the n cells lie, for tissue sections."""

    @property
    def n_cells(self) -> int:
        """Number of cells n."""
        return int(self.counts.shape[0])


def read_training_data(
    path: Path,
    *,
    layer: str | None = None,
    state: InputState = "auto",
    batch_key: str | None = None,
    spatial: bool = False,
    section_key: str | None = None,
    gene_column: str | None = None,
) -> TrainingData:
    """Read an `.h5ad` without its empty cells and features other than genes; genes of one name are summed.

    Parameters
    ----------
    layer, state
        Which matrix to read, and as what; see `scrcl_infer.matrix.choose_matrix`.
    batch_key, section_key
        Columns of `obs` that tell batches and tissue sections apart.
    spatial
        Read `obsm['spatial']` too.
    gene_column
        Column of `var` with the genes' names; None takes the index. A gene without a name there keeps the index's.

    Raises
    ------
    InputError
        The file is no `.h5ad`, has too few cells or genes with counts, or lacks a column, places or a cell's batch.
    MatrixError
        No matrix in it holds usable counts.
    """
    with H5ad(path) as source:
        report = choose_matrix(source, layer=layer, state=state)
        names, text, obs_names = *_read_genes(source, report.where, gene_column), source.obs_names()
        others = find_other_features(source, report.where)
        batch = None if batch_key is None else _read_batch(source, batch_key)
        spots = read_spots(source, section_key=section_key, otherwise="") if spatial else None
        blocks = iter_csr_blocks(source, report.where, block_size=4096, threads=available_threads(), left_out=others)
        counts = sp.vstack([to_counts(rows, report) for _, rows in blocks], format="csr")
    counts, genes = _sum_namesakes(counts, names, np.flatnonzero(~others))
    n_rows, rows = counts.shape[0], _find_cells(counts, f"{path}: {report.where}")
    counts, library, are_counts = _count(counts[rows], report)
    symbols, ids = _gene_identities(names[genes], {key: values[genes] for key, values in text.items()})
    return TrainingData(
        path=path,
        sha256=file_sha256(path),
        counts=counts,
        library_size=library,
        gene_names=tuple(names[genes]),
        symbols=symbols,
        ensembl_ids=ids,
        species=guess_species(ids if any(ids) else symbols),
        obs_names=obs_names[rows],
        rows=rows,
        n_rows=n_rows,
        matrix=report,
        are_counts=are_counts,
        batch=None if batch is None else np.unique(batch[rows], return_inverse=True)[1].astype(np.int64),
        spots=None if spots is None else Spots(spots.places[rows], spots.section[rows]),
    )


def _count(counts: sp.csr_matrix, report: MatrixReport) -> tuple[sp.csr_matrix, NDArray[np.float32], bool]:
    """Return counts (n, g), library sizes (n,), and whether these are counts or but stand in for them."""
    library = np.asarray(counts.sum(axis=1), dtype=np.float32).ravel()
    if report.target_sum is not None:
        # Logged data may hold a part of the genes only; what the cells were scaled to is their library.
        library = np.full_like(library, report.target_sum)
    elif np.array_equal(counts.data, np.rint(counts.data)):
        return counts, library, True
    found = find_counts(counts, library)
    return (counts, library, report.state == "counts") if found is None else (*found, True)


def add_gene_ids(data: TrainingData, table: Path) -> TrainingData:
    """Complete the symbols and Ensembl ids of the genes from a table, so that queries with either are understood.

    Parameters
    ----------
    data
        From `read_training_data`; what the file itself says is kept.
    table
        CSV or TSV with an Ensembl id and a symbol in each row, in either order; other rows (a header) are passed over.

    Raises
    ------
    InputError
        No row of the table names a gene of the data.
    """
    pairs: dict[str, str] = {}
    for line in table.read_text(encoding="utf-8").splitlines():
        fields = [field.strip() for field in re.split("[,\t]", line)]
        ids = [clean_name(field) for field in fields if ENSEMBL_ID.match(field)]
        symbols = [field for field in fields if field and not ENSEMBL_ID.match(field)]
        if len(ids) == 1 and symbols:
            pairs.setdefault(ids[0], symbols[0])
            pairs.setdefault(symbols[0], ids[0])
    symbols_known = zip(data.symbols, data.ensembl_ids, strict=True)
    genes = [(symbol or pairs.get(gene, ""), gene or pairs.get(symbol, "")) for symbol, gene in symbols_known]
    if tuple(genes) == tuple(zip(data.symbols, data.ensembl_ids, strict=True)):
        msg = f"{table}: no row completes a gene of the data. Expected rows such as 'ENSG00000156738,MS4A1'."
        raise InputError(msg)
    return replace(data, symbols=tuple(s for s, _ in genes), ensembl_ids=tuple(g for _, g in genes))


def read_labels(path: Path, key: str) -> NDArray[np.object_]:
    """Read one label column (n,) as strings; '' where a cell has no label.

    Used by naming, the label head, calibration and evaluation only.

    Raises
    ------
    InputError
        There is no such column (the text lists those there are), or fewer than two labels in it.
    """
    with H5ad(path) as source:
        labels = _strings(source.obs_column(key))
    labels = np.array(["" if label in LABEL_HOLES else label for label in labels], dtype=object)
    if len(set(labels) - {""}) < 2:
        only = next(iter(set(labels) - {""}), None)
        holds = "no label" if only is None else f"the label {only!r} alone"
        msg = f"{path}: obs['{key}'] holds {holds}; labels need at least two different values. Name another column."
        raise InputError(msg)
    return labels


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_batch(source: H5ad, key: str) -> NDArray[np.object_]:
    """Return the batch of each cell, (n,); cells without one are of no common batch, so they are refused."""
    values = source.obs_column(key)
    n_batches = len({str(value) for value in values})
    if 2 * n_batches > len(values):
        msg = (
            f"obs['{key}'] has {n_batches:,} different values for {len(values):,} cells, expected a few batches of "
            "many cells. Name the column that tells donors, samples or runs apart."
        )
        raise InputError(msg)
    missing = np.flatnonzero([value is None or str(value) == "nan" for value in values])
    if missing.size:
        msg = (
            f"obs['{key}'] names no batch for {missing.size} cells, the first is {source.obs_names()[missing[0]]!r} "
            f"(row {missing[0]}). Fill it in, leave those cells out, or train without --batch."
        )
        raise InputError(msg)
    return _strings(values)


def _read_genes(
    source: H5ad, where: str, gene_column: str | None
) -> tuple[NDArray[np.object_], dict[str, NDArray[np.object_]]]:
    """Return the names of the genes and all text columns of `var`."""
    columns = {key: source.var_column(key, where) for key in source.var_keys(where)}
    text = {key: _strings(values) for key, values in columns.items() if values.dtype == object}
    names = _strings(source.var_names(where))
    if gene_column is None:
        return names, text
    if gene_column in columns and gene_column not in text:
        msg = f"var['{gene_column}'] holds numbers, expected gene symbols or Ensembl ids. Name another --gene-column."
        raise InputError(msg)
    named = _strings(source.var_column(gene_column, where))  # complains where there is none
    return np.where(np.isin(named, list(LABEL_HOLES)), names, named), text


def _sum_namesakes(
    counts: sp.csr_matrix, names: NDArray[np.object_], genes: NDArray[np.int64]
) -> tuple[sp.csr_matrix, NDArray[np.int64]]:
    """Return the counts of the `genes` among the columns, those of one name summed, and the first column of each."""
    _, first, code = np.unique(names[genes].astype(str), return_index=True, return_inverse=True)
    if first.size == genes.size:
        return sp.csr_matrix(counts[:, genes], dtype=np.float32), genes
    logger.warning("Genes of one name are summed: %d columns have the name of an earlier one.", genes.size - first.size)
    order = np.argsort(first)
    place = np.empty(first.size, dtype=np.int64)
    place[order] = np.arange(first.size)
    member = sp.csr_matrix((np.ones(genes.size, np.float32), (np.arange(genes.size), place[code])))
    return sp.csr_matrix(counts[:, genes] @ member, dtype=np.float32), genes[first[order]]


def _find_cells(counts: sp.csr_matrix, where: str) -> NDArray[np.int64]:
    """Return the rows with counts, (n,); refuse too few of them, or of genes."""
    rows = np.flatnonzero(np.asarray(counts.sum(axis=1)).ravel())
    if rows.size == 0:
        msg = f"{where} holds no counts: all {counts.shape[0]} cells are empty. Name another matrix with --layer."
        raise InputError(msg)
    n_expressed = np.unique(counts.indices).size
    if rows.size < MIN_CELLS or n_expressed < MIN_GENES:
        msg = (
            f"{where} holds {rows.size} cells with counts and {n_expressed} genes with counts; training "
            f"needs at least {MIN_CELLS} cells and {MIN_GENES} genes. Name another matrix with --layer, or more data."
        )
        raise InputError(msg)
    return rows.astype(np.int64)


def _strings(values: NDArray[np.object_]) -> NDArray[np.object_]:
    return np.array([str(v) for v in values], dtype=object)


def _gene_identities(
    names: NDArray[np.object_], columns: dict[str, NDArray[np.object_]]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return symbols and Ensembl ids (without version), each '' where unknown."""
    by_column = [columns[k] for k in (*ID_COLUMNS, *SYMBOL_COLUMNS) if k in columns]
    symbols, ids = [""] * names.size, [""] * names.size
    for source in (names, *by_column):
        for i, name in enumerate(source):
            if name in LABEL_HOLES:
                continue
            if ENSEMBL_ID.match(name):
                ids[i] = ids[i] or clean_name(name)
            else:
                symbols[i] = symbols[i] or name
    return tuple(symbols), tuple(ids)
