"""The query's genes in the model's order: symbols, Ensembl ids, duplicates, and a refusal where too few meet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.blocks import LEFT_OUT, NOT_USED
from scrcl_infer.contract import UNKNOWN, GeneTable
from scrcl_infer.errors import GeneOverlapError, InputError
from scrcl_infer.gene_names import ENSEMBL_ID, FISH, PLACEHOLDER, clean_name, guess_query_species, guess_species
from scrcl_infer.result import GeneReport
from scrcl_infer.source import Source

VAR_NAMES = "var_names"
FEATURE_TYPE_KEYS = ("feature_types", "feature_type")
GENE_EXPRESSION = "gene expression"
OTHER_FEATURES = frozenset(
    {
        "antibody capture", "antigen capture", "crispr guide capture", "custom", "multiplexing capture", "peaks",
        "protein", "adt", "hto", "cmo", "vdj",
    }
)  # fmt: skip
"""Feature types of 10x and others that are no genes. CELLxGENE keeps biotypes in `feature_type`: those stay."""
NO_KIND = frozenset({"", "nan", "none", "<na>"})
ANY_CASE_OVERLAP = 0.9
"""Names in small letters look like a fish's: they are read regardless of case where this much of the evidence is found.
Mouse symbols, case aside, found .71 to .78 of a human blood model's evidence."""
_COMMON = {"Homo sapiens": "human", "Mus musculus": "mouse", "Rattus norvegicus": "rat", "Danio rerio": "zebrafish"}


@dataclass(frozen=True)
class GeneMatch:
    """Where each column of the query goes."""

    columns: NDArray[np.int32]
    """(n_query,) gene of the model; -1: none, counts for the library size only; -2: no gene, left out."""
    found: NDArray[np.bool_]
    """(G,) whether the query has the gene."""
    report: GeneReport


@dataclass(frozen=True)
class _Candidate:
    """One column of the query against one column of the model."""

    label: str
    hits: NDArray[np.int32]
    """(n_query,) gene of the model or -1."""


def match_genes(
    source: Source,
    where: str,
    genes: GeneTable,
    *,
    gene_column: str | None = None,
    min_overlap: float | None = None,
) -> GeneMatch:
    """Match the columns of a matrix with the model's genes.

    The names of the query's columns and every text column of its `var` are tried against the model's names, symbols and
    Ensembl ids: exactly (versions and case of Ensembl ids and genome prefixes aside), then regardless of case unless
    the two look like different species. The pair that carries most of the model's evidence wins; others fill in what it
    misses.

    Parameters
    ----------
    source
        The input.
    where
        'X', 'layers/NAME' or 'raw/X'.
    genes
        The model's genes, (G,).
    gene_column
        The only column of `var` to take names from ('var_names' for the index); None tries all.
    min_overlap
        Weighted overlap in [0, 1] below which the query is refused; None takes the model's own.

    Raises
    ------
    GeneOverlapError
        Too little overlap; the text shows names of both sides and guesses their species.
    InputError
        There is no such column.
    """
    names = _query_names(source, where, gene_column)
    weights = _weights(genes)
    kept = ~find_other_features(source, where)
    species = _model_species(genes), guess_query_species(names)
    candidates = list(_candidates(names, genes, fold_case=_may_fold_case(names, genes, weights, species)))
    columns, found, labels = _choose_columns(candidates, weights, kept)
    order = np.argsort(-weights, kind="stable")
    report = GeneReport(
        n_model=len(found),
        n_found=int(found.sum()),
        weighted_overlap=float(weights[found].sum()),
        matched_by=", then ".join(labels) or "nothing",
        n_summed=int((columns >= 0).sum() - found.sum()),
        n_dropped_features=int((~kept).sum()),
        missing_top=tuple(label_gene(genes, int(g)) for g in order if not found[g])[:20],
        species=species[1],
        model_species=species[0],
        n_query=int(kept.sum()),
    )
    floor = genes.min_overlap if min_overlap is None else min_overlap
    if report.weighted_overlap < floor or not report.n_found:
        raise GeneOverlapError(_refusal(report, floor, names, genes, species))
    return GeneMatch(columns, found, report)


def _choose_columns(
    candidates: list[_Candidate], weights: NDArray[np.float64], kept: NDArray[np.bool_]
) -> tuple[NDArray[np.int32], NDArray[np.bool_], list[str]]:
    """Let the candidates that carry most evidence claim columns first; return column map, genes found, labels."""
    columns = np.full(len(kept), NOT_USED, dtype=np.int32)
    found = np.zeros(len(weights), dtype=bool)
    labels: list[str] = []
    while candidates:
        gains = [_gain(c, columns, found, weights, kept) for c in candidates]
        best = int(np.argmax(gains))
        if gains[best] <= 0:
            break
        candidate = candidates.pop(best)
        free = (columns == NOT_USED) & kept & (candidate.hits >= 0)
        free[free] = ~found[candidate.hits[free]]
        columns[free] = candidate.hits[free]
        found[candidate.hits[free]] = True
        labels.append(candidate.label)
    columns[~kept] = LEFT_OUT
    return columns, found, labels


def _query_names(source: Source, where: str, gene_column: str | None) -> dict[str, NDArray[np.object_]]:
    """Return the columns that may hold gene names, cleaned."""
    found: dict[str, NDArray[np.object_]] = {}
    if gene_column in (None, VAR_NAMES, "index"):
        found[VAR_NAMES] = source.var_names(where)
    if gene_column is None or not found:
        for key in source.var_keys(where) if gene_column is None else (str(gene_column),):
            values = source.var_column(key, where)
            if values.dtype == object:
                found[f"var['{key}']"] = values
    if not found:
        msg = f"var['{gene_column}'] holds numbers, expected gene symbols or Ensembl ids. Name another --gene-column."
        raise InputError(msg)
    return {
        label: np.array([clean_name(v) if isinstance(v, str) else "" for v in values.tolist()], dtype=object)
        for label, values in found.items()
    }


def _candidates(names: dict[str, NDArray[np.object_]], genes: GeneTable, *, fold_case: bool) -> Iterable[_Candidate]:
    spellings: list[tuple[str, Callable[[str], str]]] = [("", str)]
    if fold_case:
        spellings.append((" regardless of case", str.casefold))
    tables = {"names": genes.names, "symbols": genes.symbols, "Ensembl ids": genes.ensembl_ids}
    for suffix, spell in spellings:
        for kind, table in tables.items():
            index: dict[str, int] = {}
            for g, name in enumerate(table):
                if name:
                    index.setdefault(spell(clean_name(name)), g)
            for label, query in names.items():
                hits = np.array([index.get(spell(name), -1) for name in query.tolist()], dtype=np.int32)
                if (hits >= 0).any():
                    yield _Candidate(f"{label} as {kind}{suffix}", hits)


def _gain(
    candidate: _Candidate,
    columns: NDArray[np.int32],
    found: NDArray[np.bool_],
    weights: NDArray[np.float64],
    kept: NDArray[np.bool_],
) -> float:
    """Return the evidence a candidate would add; a tiny bonus counts genes that carry none."""
    hits = np.unique(candidate.hits[(columns == NOT_USED) & kept & (candidate.hits >= 0)])
    new = hits[~found[hits]]
    return float(weights[new].sum()) + 1e-9 * len(new)


def _weights(genes: GeneTable) -> NDArray[np.float64]:
    weights = np.asarray(genes.evidence, dtype=np.float64)
    total = weights.sum()
    return weights / total if total > 0 else np.full(len(genes.names), 1 / max(1, len(genes.names)))


def find_other_features(source: Source, where: str) -> NDArray[np.bool_]:
    """Return the columns that are no genes, (n_query,)."""
    for key in FEATURE_TYPE_KEYS:
        if key in source.var_keys(where):
            kinds = np.array([str(v).strip().lower() for v in source.var_column(key, where).tolist()], dtype=object)
            is_gene = np.array([kind == GENE_EXPRESSION for kind in kinds.tolist()], dtype=bool)
            if is_gene.any():  # files that were put together may have no kind for some genes
                return ~is_gene & ~np.isin(kinds, list(NO_KIND))
            return np.array([kind in OTHER_FEATURES for kind in kinds.tolist()], dtype=bool)
    return np.zeros(source.matrix(where).shape[1], dtype=bool)


def _may_fold_case(
    names: dict[str, NDArray[np.object_]], genes: GeneTable, weights: NDArray[np.float64], species: tuple[str, str]
) -> bool:
    """Whether names that differ in case only may be the same gene: not where case tells two species apart."""
    ours, theirs = species
    if UNKNOWN in species or ours == theirs:
        return True
    if theirs != FISH:
        return False
    there = {name.casefold() for values in names.values() for name in values.tolist()} - {""}
    known = zip(genes.names, genes.symbols, strict=True)
    found = [name.casefold() in there or symbol.casefold() in there for name, symbol in known]
    return float(weights[np.array(found, dtype=bool)].sum()) >= ANY_CASE_OVERLAP


def _other_kind(names: dict[str, NDArray[np.object_]], genes: GeneTable) -> bool:
    """Whether the input has Ensembl ids alone where the model knows symbols alone, or the other way round."""

    def are_ids(values: Iterable[object]) -> bool:
        sample = [str(value) for value in values][:50]
        return 2 * sum(bool(ENSEMBL_ID.match(value)) for value in sample) > len(sample)

    kinds = {are_ids(values.tolist()) for values in names.values()}
    known = (
        {are_ids(genes.names)}
        | ({False} if any(genes.symbols) else set())
        | ({True} if any(genes.ensembl_ids) else set())
    )
    return not kinds & known


def _model_species(genes: GeneTable) -> str:
    return genes.species if genes.species != UNKNOWN else guess_species(genes.names)


def label_gene(genes: GeneTable, gene: int) -> str:
    """Return the symbol of a gene of the model, or its name where it has none."""
    return genes.symbols[gene] or genes.names[gene]


def _examples(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in list(dict.fromkeys(names))[:5]) or "none"


def _refusal(
    report: GeneReport,
    floor: float,
    names: dict[str, NDArray[np.object_]],
    genes: GeneTable,
    species: tuple[str, str],
) -> str:
    lines = [
        f"Only {report.n_found} of the model's {report.n_model} genes are in the input; they carry "
        f"{100 * report.weighted_overlap:.1f} % of its evidence, at least {100 * floor:.0f} % are needed."
    ]
    lines += [f"  input, {label}: {_examples(values.tolist())}" for label, values in names.items()]
    lines += [
        f"  model, {what}: {_examples([name for name in given if name])}"
        for what, given in (("symbols", genes.symbols), ("Ensembl ids", genes.ensembl_ids))
        if any(given)
    ] or [f"  model: {_examples(genes.names)}"]
    ours, theirs = (_COMMON.get(s, s) for s in species)
    if UNKNOWN not in species and species[0] != species[1]:
        lines.append(
            f"The input's genes look like {theirs} genes; the model is {ours}. Choose a model of that species."
        )
    elif all(PLACEHOLDER.match(v) for v in next(iter(names.values()))[:50]):
        lines.append("The input names its genes by numbers. Put symbols or Ensembl ids into var before writing it.")
    elif _other_kind(names, genes):
        lines.append(
            "The input names genes by one kind of name and the model knows the other. Name the column of var that has "
            "the model's kind with --gene-column, or train the model with a table of both (scrcl-train --gene-ids)."
        )
    else:
        lines.append(
            "Name the column of var that has symbols or Ensembl ids with --gene-column, or choose another model; "
            "--min-overlap lowers the limit at your own risk."
        )
    return "\n".join(lines)
