"""Marker genes of every population, and how the refinement's genes compare with them.

Two lists of genes are compared per population: Wilcoxon markers, which know the population's cells only, and the genes
that the trained refinement associates with it. That they overlap more than chance shows that the association reflects
expression differences; genes in one list only are a lead, not a finding.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

logger = logging.getLogger(__name__)

MIN_CELLS = 3
"""Populations with fewer cells get no markers: a rank test says nothing about them."""
TOPS = (10, 20, 50, 100)
"""List lengths k at which the two lists are compared."""


def rank_markers(adata: AnnData, key: str) -> pd.DataFrame:
    """Rank all genes in each population by a Wilcoxon rank-sum test against the other cells (scanpy, tie-corrected).

    Parameters
    ----------
    adata
        (n, g) log-normalised expression in X; obs[key] categorical.

    Returns
    -------
    DataFrame
        Sorted by population (category order) and rank (1 is best), with the columns population, rank, gene, score,
        log2_fold_change, p_value, p_adjusted (Benjamini-Hochberg), share_in, share_out (of cells that express it).

    Raises
    ------
    InputError
        Fewer than two populations have three or more cells.
    """
    import scanpy as sc

    sizes = adata.obs[key].value_counts()
    groups = [name for name in adata.obs[key].cat.categories if sizes[name] >= MIN_CELLS]
    if len(groups) < 2:
        msg = (
            f"obs['{key}'] has {len(groups)} population(s) with {MIN_CELLS} or more cells; markers tell populations "
            "apart, so there must be two. Train with a larger number of populations."
        )
        raise InputError(msg)
    if len(groups) < len(sizes):
        small = [str(name) for name in adata.obs[key].cat.categories if sizes[name] < MIN_CELLS]
        logger.warning("no markers for populations with fewer than %d cells: %s", MIN_CELLS, ", ".join(small))
    work = adata[adata.obs[key].isin(groups)].copy()
    work.obs[key] = work.obs[key].cat.remove_unused_categories()
    sc.tl.rank_genes_groups(work, key, groups=groups, method="wilcoxon", tie_correct=True, pts=True, use_raw=False)
    table = sc.get.rank_genes_groups_df(work, group=groups)
    table = table.rename(
        columns={
            "group": "population",
            "names": "gene",
            "scores": "score",
            "logfoldchanges": "log2_fold_change",
            "pvals": "p_value",
            "pvals_adj": "p_adjusted",
            "pct_nz_group": "share_in",
            "pct_nz_reference": "share_out",
        }
    )
    table.insert(1, "rank", table.groupby("population", observed=True).cumcount() + 1)
    table["population"] = table["population"].astype(str)
    order = ["score", "log2_fold_change", "p_value", "p_adjusted", "share_in", "share_out"]
    return table[["population", "rank", "gene", *order]]


def choose_top_genes(markers: pd.DataFrame, populations: Sequence[str], *, n_genes: int) -> dict[str, list[str]]:
    """Return each population's best markers, each gene once, under the first population that lists it."""
    taken: set[str] = set()
    chosen: dict[str, list[str]] = {}
    for name in populations:
        own = markers.loc[(markers["population"] == name) & (markers["log2_fold_change"] > 0), "gene"]
        chosen[name] = [gene for gene in own if gene not in taken][:n_genes]
        taken.update(chosen[name])
    return chosen


def list_associated_genes(
    association: NDArray[np.float32],
    genes: Sequence[str],
    populations: Sequence[str],
    markers: pd.DataFrame,
    differences: NDArray[np.float64],
    *,
    n_genes: int = TOPS[-1],
) -> pd.DataFrame:
    """List the genes most associated with each population, beside their rank among the Wilcoxon markers.

    The association alone ranks them: genes that are lower in the population than elsewhere can be among the first, and
    have a negative `log_difference` then.

    Parameters
    ----------
    association
        (K, G) of the bundle: how strongly the gene drives the population.
    genes
        (G,) the bundle's genes.
    populations
        (K,) names, in the rows' order.
    markers
        Of `rank_markers`.
    differences
        (K, G) of `compute_log_differences`.

    Returns
    -------
    DataFrame
        population, rank, gene, association, log_difference, wilcoxon_rank (among the bundle's genes; 1 is best),
        log2_fold_change, p_adjusted; the last three are NaN where the population got no markers or the file lacks the
        gene, and log_difference where it lacks the gene or the population.
    """
    import pandas as pd

    rows = []
    for name, values, higher in zip(populations, association, differences, strict=True):
        own = _within(markers, name, genes)
        for rank, i in enumerate(_best_first(values)[:n_genes], start=1):
            found = own.loc[genes[i]] if genes[i] in own.index else None
            seen = (np.nan,) * 3 if found is None else tuple(found[["rank", "log2_fold_change", "p_adjusted"]])
            rows.append((name, rank, genes[i], float(values[i]), float(higher[i]), *seen))
    columns = ["population", "rank", "gene", "association", "log_difference"]
    return pd.DataFrame(rows, columns=[*columns, "wilcoxon_rank", "log2_fold_change", "p_adjusted"])


def compute_log_differences(
    adata: AnnData, key: str, genes: Sequence[str], populations: Sequence[str]
) -> NDArray[np.float64]:
    """Compute the mean log expression of each gene in each population less that in all other cells.

    Parameters
    ----------
    adata
        (n, g) log-normalised expression in X, sparse; obs[key] categorical.
    genes
        G names.
    populations
        K names.

    Returns
    -------
    ndarray
        (K, G); NaN for genes that the data lack, and for populations that have none or all of the cells.
    """
    where = adata.var_names.get_indexer(list(genes))
    values = adata.X[:, where[where >= 0]]
    total = np.asarray(values.sum(axis=0, dtype=np.float64)).ravel()
    found = np.full((len(populations), len(genes)), np.nan)
    for i, name in enumerate(populations):
        own = (adata.obs[key] == name).to_numpy()
        n_own, n_others = int(own.sum()), int((~own).sum())
        if n_own and n_others:
            inside = np.asarray(values[own].sum(axis=0, dtype=np.float64)).ravel()
            found[i, where >= 0] = inside / n_own - (total - inside) / n_others
    return found


def compare_association(
    association: NDArray[np.float32],
    genes: Sequence[str],
    populations: Sequence[str],
    markers: pd.DataFrame,
) -> pd.DataFrame:
    """Count how many of a population's k most associated genes are among its k best Wilcoxon markers, k in `TOPS`.

    A k above half the genes is left out.

    Both lists are drawn from the bundle's genes that were tested (G of them), so by chance k²/G are shared; the p-value
    is that of the hypergeometric distribution, P(at least as many), adjusted over populations for each k
    (Benjamini-Hochberg). Genes of one module move together, so p-values are too small: read them as an order.

    Parameters
    ----------
    association, genes, populations, markers
        As in `list_associated_genes`.

    Returns
    -------
    DataFrame
        population, k, n_genes (G), n_shared, expected, fold, p_value, p_adjusted; only populations with markers.
    """
    import pandas as pd
    from scipy.stats import false_discovery_control, hypergeom

    rows = []
    for name, values in zip(populations, association, strict=True):
        own = _within(markers, name, genes)
        if own.empty:
            continue
        tested = np.array([gene in own.index for gene in genes])
        # A gene that is not tested (not in the file) cannot be shared, so it may not fill a place in the list either.
        driven = [genes[i] for i in _best_first(values) if tested[i]]
        for k in (k for k in TOPS if k <= len(own) / 2):
            n_shared = len(set(driven[:k]) & set(own.index[:k]))
            expected = k * k / len(own)
            chance = float(hypergeom.sf(n_shared - 1, len(own), k, k))
            rows.append((name, k, len(own), n_shared, expected, n_shared / expected, chance))
    columns = ["population", "k", "n_genes", "n_shared", "expected", "fold", "p_value"]
    table = pd.DataFrame(rows, columns=columns)
    table["p_adjusted"] = table.groupby("k")["p_value"].transform(lambda p: false_discovery_control(p.to_numpy()))
    return table


def _within(markers: pd.DataFrame, population: str, genes: Sequence[str]) -> pd.DataFrame:
    """Return one population's markers among `genes`, indexed by gene, ranked anew from 1."""
    own = markers[(markers["population"] == population) & markers["gene"].isin(set(genes))]
    own = own.drop_duplicates("gene").set_index("gene")
    return own.assign(rank=np.arange(1, len(own) + 1))


def _best_first(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return indices by decreasing value; ties in the order given."""
    return np.argsort(-np.asarray(values, dtype=np.float64), kind="stable")
