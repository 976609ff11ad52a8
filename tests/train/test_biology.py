"""A folder of biology from a small simulated run whose marker genes are known."""

from __future__ import annotations

import dataclasses
import errno
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from scrcl_infer.bundle import write_bundle
from scrcl_infer.contract import Bundle
from scrcl_infer.errors import BundleNotFoundError, InputError, OutputError
from scrcl_train import markers
from scrcl_train.biology import Biology, compute_paga, title_populations, write_biology
from scrcl_train.found import read_run
from scrcl_train.write import POPULATION
from tests.make_bundle import tiny_bundle

if TYPE_CHECKING:
    from anndata import AnnData

FIGURES = {"umap", "dotplot", "heatmap", "paga", "association_vs_markers", "associated_genes"}
TABLES = {"markers", "paga", "association_vs_markers", "associated_genes"}
N_BUNDLE_GENES = 200


def log_means(adata: AnnData) -> np.ndarray:
    """(K, g) mean log expression of each type less the mean over types: what drives a type, in the simulation."""
    counts = adata.X.toarray()
    log = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    means = np.stack([log[(adata.obs["cell_type"] == name).to_numpy()].mean(axis=0) for name in categories(adata)])
    return means - means.mean(axis=0)


def categories(adata: AnnData) -> list[str]:
    return list(adata.obs["cell_type"].cat.categories)


def run_file(simulated: AnnData) -> AnnData:
    """What a run writes, with the true types as populations P1-P6."""
    adata = simulated.copy()
    names = {name: f"P{i + 1}" for i, name in enumerate(categories(adata))}
    adata.obs[POPULATION] = adata.obs["cell_type"].astype(str).map(names).astype("category")
    adata.obs["scrcl_cell_type"] = adata.obs["cell_type"]
    counts = adata.X.toarray()
    log = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    left, values, _ = np.linalg.svd(log - log.mean(axis=0), full_matrices=False)
    adata.obsm["X_scrcl"] = (left[:, :10] * values[:10]).astype(np.float32)
    adata.obsm["X_scrcl_map"] = adata.obsm["X_scrcl"][:, :2]
    return adata


def run_bundle(simulated: AnnData) -> Bundle:
    """A bundle of the first 200 genes whose association is the true one for P1-P5, and turned round for P6."""
    bundle = tiny_bundle(n_genes=N_BUNDLE_GENES, n_populations=6)
    sizes = simulated.obs["cell_type"].value_counts()
    populations = tuple(
        dataclasses.replace(population, n_cells=int(sizes[name]))
        for population, name in zip(bundle.manifest.populations, categories(simulated), strict=True)
    )
    genes = dataclasses.replace(bundle.manifest.genes, names=tuple(simulated.var_names[:N_BUNDLE_GENES]))
    association = log_means(simulated)[:, :N_BUNDLE_GENES].astype(np.float32)
    association[5] *= -1
    return dataclasses.replace(
        bundle,
        manifest=dataclasses.replace(bundle.manifest, genes=genes, populations=populations),
        gene_graph=dataclasses.replace(bundle.gene_graph, association=association),
    )


@pytest.fixture(scope="module")
def run(simulated: AnnData, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("run")
    run_file(simulated).write_h5ad(folder / "run.h5ad")
    return folder / "run.h5ad", write_bundle(run_bundle(simulated), folder / "bundle")


@pytest.fixture(scope="module")
def written(run: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Biology:
    with warnings.catch_warnings():
        # scanpy's own use of pandas and igraph
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=pd.errors.PerformanceWarning)
        return write_biology(*run, tmp_path_factory.mktemp("biology") / "out")


def read(written: Biology, name: str) -> pd.DataFrame:
    return pd.read_csv(written.folder / f"{name}.tsv", sep="\t")


def test_a_population_goes_by_its_number_and_its_types_name(simulated: AnnData) -> None:
    bundle = run_bundle(simulated)
    first, second, third, fourth, *rest = bundle.manifest.populations
    named = (
        dataclasses.replace(first, cell_type="B", purity=None),  # by markers
        dataclasses.replace(second, cell_type=second.name),
        dataclasses.replace(third, cell_type="T", purity=0.5),
        dataclasses.replace(fourth, cell_type="Eosinophil", purity=0.264),
        *rest,
    )
    titles = title_populations(
        dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, populations=named))
    )
    assert (titles[first.name], titles[second.name]) == (f"{first.name} B", second.name)
    assert (titles[third.name], titles[fourth.name]) == (f"{third.name} T", f"{fourth.name} (26 % Eosinophil)")


def test_every_figure_and_table_is_written(written: Biology) -> None:
    expected = {f"{name}.png" for name in FIGURES} | {f"{name}.tsv" for name in TABLES}
    assert set(written.files) == expected
    for name in FIGURES:
        data = (written.folder / f"{name}.png").read_bytes()
        assert data.startswith(b"\x89PNG")
        width, height = (int.from_bytes(data[i : i + 4], "big") for i in (16, 20))
        assert 500 < width < 5000
        assert 300 < height < 5000


def test_markers_are_those_that_were_simulated(written: Biology, simulated: AnnData) -> None:
    markers = read(written, "markers")
    raised = log_means(simulated)
    for i, name in enumerate(written.populations[:5]):
        best = markers[(markers["population"] == name) & (markers["rank"] <= 10)]["gene"]
        found = raised[i, simulated.var_names.get_indexer(best)]
        assert found.min() > np.quantile(raised[i], 0.8), name


def test_a_true_association_is_found_enriched_and_a_false_one_is_not(written: Biology) -> None:
    compared = read(written, "association_vs_markers").query("k == 20").set_index("population")
    # The rare sixth population got the opposite of its association.
    assert (compared.loc[["P1", "P2", "P3", "P4", "P5"], "p_adjusted"] < 0.01).all()
    assert compared.loc["P6", "p_adjusted"] > 0.5
    assert compared.loc["P6", "n_shared"] <= compared.loc["P6", "expected"]
    assert written.mean_overlap > written.mean_chance == pytest.approx(50 / N_BUNDLE_GENES, rel=0.05)


def test_associated_genes_come_with_their_rank_among_the_markers(written: Biology) -> None:
    listed = read(written, "associated_genes").query("population == 'P3'")
    assert listed["rank"].tolist() == list(range(1, 101))
    assert listed["association"].is_monotonic_decreasing
    assert listed["wilcoxon_rank"].between(1, N_BUNDLE_GENES).all()
    assert listed["wilcoxon_rank"].head(10).median() < listed["wilcoxon_rank"].tail(50).median()
    assert set(listed["cell_type"]) == {"type C"}


def test_associated_genes_come_with_how_much_higher_they_are(written: Biology, simulated: AnnData) -> None:
    counts = simulated.X.toarray()
    log = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    listed = read(written, "associated_genes")
    for i, name in enumerate(written.populations):
        rows = listed[listed["population"] == name]
        own = (simulated.obs["cell_type"] == categories(simulated)[i]).to_numpy()
        column = simulated.var_names.get_indexer(rows["gene"])
        expected = log[own].mean(axis=0)[column] - log[~own].mean(axis=0)[column]
        there = rows["log_difference"].notna().to_numpy()  # genes in fewer than three cells are not in the data
        assert there.mean() > 0.9
        np.testing.assert_allclose(rows["log_difference"][there], expected[there], rtol=1e-4, atol=1e-5)
    # P6 got the opposite of its association: its leading genes are lower, and stay where they are.
    assert (listed.query("population == 'P6'")["log_difference"].head(10) < 0).all()


def test_paga_joins_the_two_relatives(written: Biology) -> None:
    edges = read(written, "paga")
    assert edges["connectivity"].is_monotonic_decreasing
    # Of the eight cells of the rare P6, one stray link weighs much.
    strongest = edges.query("population_1 != 'P6' and population_2 != 'P6'").iloc[0]
    assert {strongest["population_1"], strongest["population_2"]} == {"P1", "P2"}
    assert 0 < strongest["connectivity"] <= 1


def test_one_population_alone_has_no_graph() -> None:
    assert compute_paga(np.ones((5, 2), np.float32), np.array(["P1"] * 5, object), ["P1"]).tolist() == [[0.0]]


def test_expression_is_log_of_counts_per_ten_thousand(run: tuple[Path, Path], simulated: AnnData) -> None:
    adata = read_run(run[0])
    counts = simulated.X.toarray()
    expected = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    kept = simulated.var_names.get_indexer(adata.var_names)
    np.testing.assert_allclose(adata.X.toarray(), expected[:, kept], rtol=1e-5)
    assert ((counts > 0).sum(axis=0) >= 3).sum() == adata.n_vars


def test_the_matrix_is_the_one_that_was_trained_on(run: tuple[Path, Path], tmp_path: Path) -> None:
    import anndata

    adata = anndata.read_h5ad(run[0])
    adata.layers["spliced"] = adata.X.copy()
    adata.X = adata.X[::-1].copy()
    adata.uns["scrcl"] = {"matrix": "layers/spliced", "input_state": "counts"}
    adata.write_h5ad(tmp_path / "layer.h5ad")
    np.testing.assert_array_equal(read_run(tmp_path / "layer.h5ad").X.toarray(), read_run(run[0]).X.toarray())


def test_genes_go_by_the_column_that_the_run_was_given(run: tuple[Path, Path], tmp_path: Path) -> None:
    import anndata

    adata = anndata.read_h5ad(run[0])
    adata.var["symbol"] = adata.var_names.astype(str)
    adata.var_names = [str(i) for i in range(adata.n_vars)]
    adata.write_h5ad(tmp_path / "numbers.h5ad")
    assert list(read_run(tmp_path / "numbers.h5ad", "symbol").var_names) == list(read_run(run[0]).var_names)
    with pytest.raises(InputError, match=r"genes in both: 0 .*--gene-column"):
        write_biology(tmp_path / "numbers.h5ad", run[1], tmp_path / "out")


def test_a_file_of_no_run_is_refused(run: tuple[Path, Path], simulated: AnnData, tmp_path: Path) -> None:
    simulated.write_h5ad(tmp_path / "plain.h5ad")
    with pytest.raises(InputError, match="--write-h5ad"):
        write_biology(tmp_path / "plain.h5ad", run[1], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bundle_goes_by_its_name_too(run: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRCL_MODELS", str(tmp_path))
    write_bundle(tiny_bundle(), tmp_path / "by-name")
    with pytest.raises(InputError, match="bundle 'tiny' are not of the same run"):
        write_biology(run[0], "by-name", tmp_path / "out")
    with pytest.raises(BundleNotFoundError, match="did you mean 'by-name'"):
        write_biology(run[0], "by-nam", tmp_path / "out")


def test_a_folder_with_something_in_it_is_left_alone(run: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"exists already.*--force"):
        write_biology(*run, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_that_cannot_be_written_is_refused_with_what_to_do(
    run: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match=r"Cannot write '.*out': Permission denied\. .*choose another place"):
        write_biology(*run, tmp_path / "out")


def test_populations_too_small_for_markers_are_named_in_order(
    run: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    adata = read_run(run[0])[:, :5].copy()
    names = adata.obs[POPULATION].astype(str).to_numpy()
    names[:3] = ["P13", "P13", "P7"]
    adata.obs[POPULATION] = pd.Categorical(names, categories=["P1", "P2", "P3", "P4", "P5", "P6", "P7", "P13"])
    with caplog.at_level(logging.WARNING, "scrcl_train"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scanpy's own use of pandas
        markers.rank_markers(adata, POPULATION)
    assert caplog.messages == ["no markers for populations with fewer than 3 cells: P7, P13"]
