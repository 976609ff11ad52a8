"""What the populations are made of: markers, maps and the refinement's genes, as a folder of figures and tables.

The one function takes what a training run leaves behind: the file of `scrcl-train --write-h5ad` and the bundle.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.atomic import output_errors
from scrcl_infer.bundle import read_bundle
from scrcl_infer.catalog import find_bundle
from scrcl_infer.contract import Bundle, Population
from scrcl_infer.errors import OutputError
from scrcl_train.found import EMBEDDING, MAP, check_same_run, read_run
from scrcl_train.write import CELL_TYPE, POPULATION

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

logger = logging.getLogger(__name__)

N_TABLE_MARKERS = 200
"""Markers of each population that the table lists."""
N_FIGURE_MARKERS = 5
"""Markers of each population in the dot plot and the heatmap, fewer where there are many populations."""
MAX_FIGURE_GENES = 90
COMPARED_TOP = 50
"""The list length that `Biology` sums up."""
N_NEIGHBORS = 15
"""Of PAGA's cell graph."""
EXACT_BELOW = 20_000
"""Fewer cells than this: exact neighbours (scanpy 1.11 beside pynndescent 0.7 fails above 8,192 cells otherwise)."""


@dataclass(frozen=True)
class Biology:
    """What was written."""

    folder: Path
    files: tuple[str, ...]
    """Names in the folder, sorted."""
    populations: tuple[str, ...]
    mean_overlap: float
    """Mean share of the populations' 50 most associated genes that are among their 50 best Wilcoxon markers.

    NaN where the model has too few genes to compare.
    """
    mean_chance: float
    """What the same share would be by chance."""


def write_biology(
    h5ad: Path,
    bundle: Path | str,
    output: Path,
    *,
    gene_column: str | None = None,
    force: bool = False,
    seed: int = 0,
) -> Biology:
    """Write marker genes, maps and the refinement's gene associations of a training run.

    Tables (TSV): `markers`, `associated_genes`, `association_vs_markers`, `paga`. Figures (PNG): `umap`, `dotplot`,
    `heatmap`, `paga`, `association_vs_markers`, `associated_genes`. The tables rank genes by association alone; the
    figure `associated_genes` shows the first that are higher in the population than elsewhere (`log_difference` > 0).

    Parameters
    ----------
    h5ad
        Written by `scrcl-train --write-h5ad`: counts, obs['scrcl_population'], obsm['X_scrcl'].
    bundle
        The bundle of the same run: its folder, or its name where `scrcl_infer.catalog` finds it.
    output
        Folder to write; made where it does not exist.
    gene_column
        Column of `var` with the genes' names, as the run was given; None takes the index.
    force
        Write into a folder that holds something already.
    seed
        Of the map, where the file has none, and of the cells that the heatmap shows.

    Raises
    ------
    InputError
        The file was not written by a training run, or by another one than the bundle.
    OutputError
        The folder holds something already and `force` is not given, or it cannot be written.
    BundleError
        The bundle is not found or cannot be read.
    """
    with output_errors(output):
        taken = output.exists() and (not output.is_dir() or (any(output.iterdir()) and not force))
    if taken:
        msg = f"{output} exists already. Name another folder, or write into it with --force."
        raise OutputError(msg)
    folder, _ = find_bundle(bundle)
    model = read_bundle(folder)
    adata = read_run(h5ad, gene_column)
    check_same_run(adata, model, h5ad)
    with output_errors(output):
        output.mkdir(parents=True, exist_ok=True)
        comparison = write_tables_and_genes(adata, model, output, seed=seed)
        write_maps(adata, output, seed=seed)
    means = comparison.loc[comparison["k"] == COMPARED_TOP, ["n_shared", "expected"]].mean() / COMPARED_TOP
    return Biology(
        folder=output,
        files=tuple(sorted(path.name for path in output.iterdir())),
        populations=tuple(adata.obs[POPULATION].cat.categories),
        mean_overlap=float(means["n_shared"]),
        mean_chance=float(means["expected"]),
    )


def write_tables_and_genes(adata: AnnData, bundle: Bundle, folder: Path, *, seed: int = 0) -> pd.DataFrame:
    """Write markers, the refinement's genes and their comparison; return the comparison."""
    from scrcl_train import figures, markers

    ranked = markers.rank_markers(adata, POPULATION)
    _write_table(ranked[ranked["rank"] <= N_TABLE_MARKERS], folder / "markers.tsv")
    shown = list(dict.fromkeys(ranked["population"]))
    n_genes = max(1, min(N_FIGURE_MARKERS, MAX_FIGURE_GENES // len(shown)))
    top = markers.choose_top_genes(ranked, shown, n_genes=n_genes)
    titles = title_populations(bundle)
    figures.draw_dotplot(adata, POPULATION, top, folder / "dotplot.png", titles=titles)
    figures.draw_heatmap(adata, POPULATION, top, folder / "heatmap.png", titles=titles, seed=seed)

    names = [population.name for population in bundle.manifest.populations]
    genes, association = bundle.manifest.genes.names, bundle.gene_graph.association
    differences = markers.compute_log_differences(adata, POPULATION, genes, names)
    driven = markers.list_associated_genes(association, genes, names, ranked, differences)
    compared = markers.compare_association(association, genes, names, ranked)
    types = {population.name: population.cell_type for population in bundle.manifest.populations}
    for table, name in ((driven, "associated_genes"), (compared, "association_vs_markers")):
        _write_table(table.assign(cell_type=table["population"].map(types)), folder / f"{name}.tsv")
    figures.draw_associated_genes(driven, folder / "associated_genes.png", titles=titles)
    if len(compared):
        figures.draw_overlap(compared, folder / "association_vs_markers.png", titles=titles)
    else:
        logger.warning("the model has too few genes to compare its association with markers")
    return compared


def title_populations(bundle: Bundle) -> dict[str, str]:
    """Return population -> its number and its type's name; before the name, the share of its cells if below half."""
    return {population.name: _title(population) for population in bundle.manifest.populations}


def _title(population: Population) -> str:
    if population.cell_type == population.name:
        return population.name
    if population.purity is not None and population.purity < 0.5:
        return f"{population.name} ({100 * population.purity:.0f} % {population.cell_type})"
    return f"{population.name} {population.cell_type}"


def write_maps(adata: AnnData, folder: Path, *, seed: int = 0) -> None:
    """Write the UMAP by population (and by type, where types differ from populations) and the PAGA graph."""
    from scrcl_train import figures
    from scrcl_train.place import compute_map

    embedding = np.asarray(adata.obsm[EMBEDDING], dtype=np.float32)
    places = np.asarray(adata.obsm[MAP]) if MAP in adata.obsm else compute_map(embedding, seed=seed)
    populations = adata.obs[POPULATION].to_numpy(dtype=object)
    groupings = {"Populations": populations}
    if CELL_TYPE in adata.obs and (adata.obs[CELL_TYPE].to_numpy(dtype=object) != populations).any():
        groupings["Cell types"] = adata.obs[CELL_TYPE].to_numpy(dtype=object)
    figures.draw_umap(places, groupings, folder / "umap.png")

    names = list(adata.obs[POPULATION].cat.categories)
    connectivities = compute_paga(embedding, populations, names, seed=seed)
    middles = np.stack([np.median(places[populations == name], axis=0) for name in names])
    sizes = np.array([int((populations == name).sum()) for name in names])
    figures.draw_paga(connectivities, middles, names, sizes, folder / "paga.png")
    _write_table(_list_edges(connectivities, names), folder / "paga.tsv")


def compute_paga(
    embedding: NDArray[np.float32], populations: NDArray[np.object_], names: list[str], *, seed: int = 0
) -> NDArray[np.float64]:
    """Return PAGA's connectivities (K, K) of the populations `names`, symmetric, in [0, 1] (scanpy)."""
    import anndata
    import pandas as pd
    import scanpy as sc

    if len(names) < 2:
        return np.zeros((len(names), len(names)))
    # PAGA reads the graph only; an empty matrix keeps the genes out of memory.
    graph = anndata.AnnData(np.zeros((len(embedding), 1), dtype=np.float32))
    graph.obs[POPULATION] = pd.Categorical(populations, categories=names)
    graph.obsm[EMBEDDING] = embedding
    # PAGA counts who is whose neighbour and reads no weights; 'gauss' weights spare the minute of compiling UMAP's.
    sc.pp.neighbors(
        graph,
        method="gauss",
        n_neighbors=min(N_NEIGHBORS, len(embedding) - 1),
        use_rep=EMBEDDING,
        metric="cosine",
        transformer="sklearn" if len(embedding) < EXACT_BELOW else None,
        random_state=seed,
    )
    sc.tl.paga(graph, groups=POPULATION)
    found: NDArray[np.float64] = graph.uns["paga"]["connectivities"].toarray().astype(np.float64)
    return found


def _list_edges(connectivities: NDArray[np.float64], names: list[str]) -> pd.DataFrame:
    import pandas as pd

    first, second = np.triu_indices(len(names), k=1)
    values = connectivities[first, second]
    order = np.argsort(-values, kind="stable")
    rows = [(names[first[i]], names[second[i]], values[i]) for i in order if values[i] > 0]
    return pd.DataFrame(rows, columns=["population_1", "population_2", "connectivity"])


def _write_table(table: pd.DataFrame, path: Path) -> None:
    table.to_csv(path, sep="\t", index=False, float_format="%.6g", lineterminator="\n")
