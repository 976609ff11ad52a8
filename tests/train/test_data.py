from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scrcl_infer.errors import InputError, MatrixError
from scrcl_train.data import TrainingData, add_gene_ids, file_sha256, read_labels, read_training_data


@pytest.fixture
def h5ad(tmp_path: Path, simulated: AnnData) -> Path:
    """The simulated cells with two empty ones, an antibody, symbols, and versioned Ensembl ids."""
    adata = simulated.copy()
    counts = adata.X.tolil()
    counts[[3, 7]] = 0
    adata.X = counts.tocsr()
    adata.var["gene_ids"] = [f"ENSG{i:011d}.{i % 7}" for i in range(adata.n_vars)]
    adata.var["feature_types"] = ["Gene Expression"] * (adata.n_vars - 1) + ["Antibody Capture"]
    adata.var_names = [f"SYM{i}" for i in range(adata.n_vars)]
    labels = adata.obs["cell_type"].astype(object)
    labels.iloc[:5] = np.nan
    adata.obs["with_holes"] = labels.astype("category")
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    return path


def test_counts_are_those_of_anndata_without_empty_cells_and_other_features(h5ad: Path) -> None:
    import anndata as ad

    data = read_training_data(h5ad, batch_key="batch")
    stored = ad.read_h5ad(h5ad)
    rows = np.setdiff1d(np.arange(stored.n_obs), [3, 7])
    expected = stored.X[rows][:, :-1]
    assert (data.counts != expected).nnz == 0
    np.testing.assert_array_equal(data.rows, rows)
    np.testing.assert_allclose(data.library_size, np.asarray(expected.sum(axis=1)).ravel())
    assert list(data.obs_names) == list(stored.obs_names[rows])
    assert data.n_rows == stored.n_obs
    assert data.batch is not None
    assert (data.batch == stored.obs["batch"].cat.codes.to_numpy()[rows]).all()


@pytest.mark.parametrize("dense", [True, False])
def test_values_of_other_features_may_be_anything(h5ad: Path, tmp_path: Path, *, dense: bool) -> None:
    stored = anndata.read_h5ad(h5ad)
    centred = stored.X.tolil()
    centred[:, -1] = np.linspace(-3, 3, stored.n_obs)[:, None]
    centred[0, -1] = np.nan
    stored.X = centred.toarray() if dense else centred.tocsr()
    stored.write_h5ad(tmp_path / "centred.h5ad")
    data, expected = read_training_data(tmp_path / "centred.h5ad"), read_training_data(h5ad)
    assert (data.counts != expected.counts).nnz == 0
    np.testing.assert_array_equal(data.library_size, expected.library_size)
    stored.X[5, 0] = -1
    stored.write_h5ad(tmp_path / "wrong.h5ad")
    with pytest.raises(MatrixError, match=r"-1 for cell .* gene 'SYM0'"):
        read_training_data(tmp_path / "wrong.h5ad", state="counts", layer="X")


@pytest.mark.parametrize("base", [np.e, 2.0])
def test_logarithms_of_counts_are_counts(simulated: AnnData, tmp_path: Path, base: float) -> None:
    adata = simulated.copy()
    adata.X.data = (np.log1p(adata.X.data) / np.log(base)).astype(np.float32)
    adata.write_h5ad(tmp_path / "logged.h5ad")
    data = read_training_data(tmp_path / "logged.h5ad")
    assert data.are_counts
    assert data.matrix.target_sum is None
    np.testing.assert_allclose(data.counts.toarray(), simulated.X.toarray(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(data.library_size, np.asarray(simulated.X.sum(axis=1)).ravel(), rtol=1e-4)


def test_symbols_and_ids_are_told_apart_and_versions_dropped(h5ad: Path) -> None:
    data = read_training_data(h5ad)
    assert data.symbols[:2] == ("SYM0", "SYM1")
    assert data.ensembl_ids[:2] == ("ENSG00000000000", "ENSG00000000001")
    assert data.species == "Homo sapiens"
    assert data.batch is None


def test_logged_data_keeps_the_total_it_was_scaled_to(tmp_path: Path, simulated: AnnData) -> None:
    """A part of the genes is there only: the row sums of expm1 fall short of ten thousand, the library must not."""
    adata = simulated.copy()
    totals = np.asarray(adata.X.sum(axis=1))
    logged = adata.X.multiply(10_000 / totals).tocsr()
    logged.data = np.log1p(logged.data)
    adata.X = logged.astype(np.float32)[:, :]
    path = tmp_path / "logged.h5ad"
    adata[:, :250].copy().write_h5ad(path)
    data = read_training_data(path, state="log1p10k")
    rates = data.counts.toarray() * (10_000 / data.library_size)[:, None]
    np.testing.assert_allclose(rates, np.expm1(logged[:, :250].toarray()), rtol=1e-4)


def test_a_column_names_the_genes_and_the_index_those_without_a_name_there(h5ad: Path) -> None:
    import anndata as ad

    adata = ad.read_h5ad(h5ad)
    adata.var["known_as"] = pd.Categorical(["Gene 0", None, *(f"Gene {i}" for i in range(2, adata.n_vars))])
    adata.write_h5ad(h5ad)
    assert read_training_data(h5ad, gene_column="known_as").gene_names[:3] == ("Gene 0", adata.var_names[1], "Gene 2")
    adata.var["known_as"] = np.arange(adata.n_vars)
    adata.write_h5ad(h5ad)
    with pytest.raises(InputError, match=r"var\['known_as'\] holds numbers"):
        read_training_data(h5ad, gene_column="known_as")
    with pytest.raises(InputError, match="nowhere"):
        read_training_data(h5ad, gene_column="nowhere")


def test_genes_of_one_name_are_summed_where_the_first_stands(
    tmp_path: Path, simulated: AnnData, caplog: pytest.LogCaptureFixture
) -> None:
    adata = simulated[:80].copy()
    names = adata.var_names.to_list()
    names[7], names[9], names[4] = names[2], names[2], names[3]
    adata.var_names = names
    adata.write_h5ad(tmp_path / "twice.h5ad")
    data = read_training_data(tmp_path / "twice.h5ad")
    assert "3 columns have the name of an earlier one" in caplog.text
    assert list(data.gene_names) == list(dict.fromkeys(names))
    dense, found = adata.X.toarray(), data.counts.toarray()
    np.testing.assert_array_equal(found[:, 2], dense[data.rows][:, [2, 7, 9]].sum(axis=1))
    np.testing.assert_array_equal(found[:, 3], dense[data.rows][:, [3, 4]].sum(axis=1))
    np.testing.assert_array_equal(found[:, 4], dense[data.rows][:, 5])
    np.testing.assert_array_equal(data.library_size, dense[data.rows].sum(axis=1))


def test_labels_have_holes_where_the_column_has(h5ad: Path) -> None:
    labels = read_labels(h5ad, "with_holes")
    assert (labels[:5] == "").all()
    assert (labels[5:] != "").all()


@pytest.mark.parametrize(("key", "text"), [("nothing", "batch"), ("constant", "two different")])
def test_useless_label_columns_are_refused(tmp_path: Path, simulated: AnnData, key: str, text: str) -> None:
    adata = simulated.copy()
    adata.obs["constant"] = "one"
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    with pytest.raises(InputError, match=text):
        read_labels(path, key)


def test_too_few_cells_are_refused(tmp_path: Path, simulated: AnnData) -> None:
    path = tmp_path / "few.h5ad"
    simulated[:20].copy().write_h5ad(path)
    with pytest.raises(InputError, match="20 cells"):
        read_training_data(path)


def test_a_file_of_empty_cells_is_refused_in_those_words(tmp_path: Path, simulated: AnnData) -> None:
    adata = simulated.copy()
    adata.X = adata.X * 0
    adata.write_h5ad(tmp_path / "empty.h5ad")
    with pytest.raises(InputError, match=r"empty\.h5ad: X holds no counts: all 400 cells are empty.*--layer"):
        read_training_data(tmp_path / "empty.h5ad")


def test_places_stay_with_their_spots_where_empty_ones_are_left_out(h5ad: Path) -> None:
    import anndata as ad

    adata = ad.read_h5ad(h5ad)
    adata.obsm["spatial"] = np.column_stack([np.arange(400.0), np.zeros(400)])
    adata.obs["slice"] = np.where(np.arange(400) < 100, "b", "a")
    adata.write_h5ad(h5ad)
    spots = read_training_data(h5ad, spatial=True, section_key="slice").spots
    assert spots is not None
    used = np.setdiff1d(np.arange(400), [3, 7])
    np.testing.assert_array_equal(spots.places[:, 0], used)
    np.testing.assert_array_equal(spots.section, used < 100)
    with pytest.raises(InputError, match="batch"):
        read_training_data(h5ad, spatial=True, section_key="nothing")


def test_a_gene_named_nan_has_no_symbol(h5ad: Path) -> None:
    """pandas writes holes of a column as such."""
    import anndata as ad

    adata = ad.read_h5ad(h5ad)
    adata.var["gene_ids"] = ["nan", "None", *adata.var["gene_ids"][2:]]
    adata.write_h5ad(h5ad)
    assert read_training_data(h5ad).ensembl_ids[:3] == ("", "", "ENSG00000000002")


def test_a_missing_batch_column_is_refused_with_those_there_are(h5ad: Path) -> None:
    with pytest.raises(InputError, match="cell_type"):
        read_training_data(h5ad, batch_key="donor")


@pytest.mark.parametrize("kind", ["category", "number", "text"])
def test_every_cell_needs_a_batch(h5ad: Path, kind: str) -> None:
    import anndata as ad

    adata = ad.read_h5ad(h5ad)
    batch = adata.obs["batch"].cat.codes.astype(float) if kind == "number" else adata.obs["batch"].astype(object)
    batch.iloc[[20, 30]] = np.nan
    adata.obs["run"] = batch.astype("category") if kind == "category" else batch
    if kind == "text":
        adata.obs["run"] = batch.fillna("nan").astype(object)  # as pandas writes holes of a column of text
    adata.write_h5ad(h5ad)
    name = adata.obs_names[20]
    with pytest.raises(InputError, match=rf"obs\['run'\] names no batch for 2 cells, the first is '{name}' \(row 20\)"):
        read_training_data(h5ad, batch_key="run")


def test_training_data_has_no_place_for_labels(h5ad: Path) -> None:
    data = read_training_data(h5ad)
    held = {name: getattr(data, name) for name in TrainingData.__dataclass_fields__}
    types = {"T naive", "T memory", "B", "Monocyte", "NK", "Platelet"}
    for name, value in held.items():
        values = (
            set(np.ravel(np.asarray(value, dtype=object)).tolist()) if isinstance(value, np.ndarray | tuple) else ()
        )
        assert not types & set(values), name


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert file_sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_table_completes_ids_and_symbols_and_changes_no_others(tmp_path: Path, simulated: AnnData) -> None:
    adata = simulated.copy()
    names = [f"SYM{i}" for i in range(adata.n_vars)]
    names[1] = "ENSG00000000001"
    adata.var_names = names
    path, table = tmp_path / "cells.h5ad", tmp_path / "ids.csv"
    adata.write_h5ad(path)
    table.write_text("gene_id,gene_name\nENSG00000000000.7,SYM0\nENSG00000000001,OTHER\n")
    data = add_gene_ids(read_training_data(path), table)
    assert data.ensembl_ids[:3] == ("ENSG00000000000", "ENSG00000000001", "")
    assert data.symbols[:3] == ("SYM0", "OTHER", "SYM2")
    table.write_text("ENSG00000000009,NOTHING\n")
    with pytest.raises(InputError, match="no row completes"):
        add_gene_ids(read_training_data(path), table)


def test_symbols_and_ids_are_both_kept_whatever_their_case_and_place(tmp_path: Path, simulated: AnnData) -> None:
    """The file names genes by ids in small letters with versions; symbols in mixed case are in a column."""
    adata = simulated.copy()
    adata.var["gene_symbol"] = [f"sYm{i}" for i in range(adata.n_vars)]
    adata.var_names = [f"ensg{i:011d}.{i % 5}" for i in range(adata.n_vars)]
    path = tmp_path / "cells.h5ad"
    adata.write_h5ad(path)
    data = read_training_data(path)
    assert data.ensembl_ids[:2] == ("ENSG00000000000", "ENSG00000000001")
    assert data.symbols[:2] == ("sYm0", "sYm1")
    assert data.species == "Homo sapiens"


def test_a_column_of_cell_names_is_no_batch(h5ad: Path, tmp_path: Path) -> None:
    adata = anndata.read_h5ad(h5ad)
    adata.obs["barcode"] = adata.obs_names.astype(str)
    adata.write_h5ad(tmp_path / "barcodes.h5ad")
    with pytest.raises(InputError, match=f"{adata.n_obs} different values for {adata.n_obs} cells"):
        read_training_data(tmp_path / "barcodes.h5ad", batch_key="barcode")
