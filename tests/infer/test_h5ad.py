"""Opening files: layouts of several anndata versions, and refusals that say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from scrcl_infer.errors import InputError
from scrcl_infer.h5ad import H5ad, open_source

N, G = 23, 11
COUNTS = np.random.default_rng(0).poisson(0.8, (N, G)).astype(np.float32)


def make_adata() -> anndata.AnnData:
    obs = pd.DataFrame(
        {
            "kind": pd.Categorical(["a", None, "b"] * 7 + ["a", "b"]),
            "text": [f"t{i}" for i in range(N)],
            "number": np.arange(N),
            "ok": pd.array([True, None, False] * 7 + [True, True], dtype="boolean"),
            "whole": pd.array([1, None, 3] * 7 + [4, 5], dtype="Int64"),
        },
        index=[f"cell-ü{i}" for i in range(N)],
    )
    var = pd.DataFrame(
        {"gene_ids": [f"ENSG{i:011d}" for i in range(G)], "kind": pd.Categorical(["x"] * G)},
        index=[f"G{i}" for i in range(G)],
    )
    adata = anndata.AnnData(sp.csr_matrix(COUNTS), obs=obs, var=var)
    adata.layers["counts"] = sp.csc_matrix(COUNTS)
    adata.obsm["spatial"] = np.arange(2.0 * N).reshape(N, 2)
    adata.obsm["frame"] = pd.DataFrame({"u": np.arange(N), "v": np.ones(N)}, index=obs.index)
    adata.obsm["sparse"] = sp.csr_matrix(COUNTS[:, :3])
    adata.raw = anndata.AnnData(
        sp.csr_matrix(np.hstack([COUNTS, COUNTS[:, :2]])),
        obs=obs[[]],
        var=pd.DataFrame({"symbol": list("abcdefghijklm")}, index=[f"R{i}" for i in range(G + 2)]),
    )
    return adata


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "a.h5ad"
    make_adata().write_h5ad(path, compression="gzip")
    return path


@pytest.mark.parametrize("kind", ["file", "text path", "memory", "view", "backed"])
def test_names_and_columns(written: Path, kind: str) -> None:
    adata = make_adata()
    data: Any = {"file": written, "text path": str(written), "memory": adata, "view": adata[:], "backed": None}[kind]
    if kind == "backed":
        data = anndata.read_h5ad(written, backed="r")
    with open_source(data) as source:
        assert (source.n_cells, source.n_genes) == (N, G)
        assert source.obs_names().tolist() == adata.obs_names.tolist()
        assert source.obs_keys() == tuple(adata.obs.columns)
        assert source.obs_column("kind").tolist() == ["a", None, "b"] * 7 + ["a", "b"]
        assert source.obs_column("text").tolist() == adata.obs["text"].tolist()
        np.testing.assert_array_equal(source.obs_column("number"), np.arange(N))
        np.testing.assert_array_equal(source.obs_column("whole"), [1, np.nan, 3] * 7 + [4, 5])
        np.testing.assert_array_equal(source.obs_column("ok"), [1, np.nan, 0] * 7 + [1, 1])
        assert source.var_names().tolist() == adata.var_names.tolist()
        assert source.var_names("layers/counts").tolist() == adata.var_names.tolist()
        assert source.var_names("raw/X").tolist() == adata.raw.var_names.tolist()
        assert source.var_keys() == ("gene_ids", "kind")
        assert source.var_keys("raw/X") == ("symbol",)
        assert source.var_column("symbol", "raw/X").tolist() == list("abcdefghijklm")
        assert source.layers() == ("counts",)
        assert source.matrices() == ("X", "layers/counts", "raw/X")
        assert set(source.obsm_keys()) == {"spatial", "frame", "sparse"}
        np.testing.assert_array_equal(source.obsm("spatial"), adata.obsm["spatial"])
        np.testing.assert_array_equal(source.obsm("frame"), adata.obsm["frame"].to_numpy())
        np.testing.assert_array_equal(source.obsm("sparse"), COUNTS[:, :3])
        for ask in (source.obs_column, source.var_column, source.obsm, source.matrix):
            with pytest.raises(InputError, match=r"has no 'nope'. It has: "):
                ask("nope")
    if kind == "backed":
        data.file.close()


@pytest.mark.parametrize("where", ["X", "layers/counts", "raw/X"])
def test_matrix_says_what_it_is(written: Path, where: str) -> None:
    with H5ad(written) as source:
        handle = source.matrix(where)
        assert handle.where == where
        assert handle.shape == (N, G + 2 if where == "raw/X" else G)
        assert handle.encoding == ("csc" if where == "layers/counts" else "csr")
        assert handle.dtype == np.float32
        np.testing.assert_array_equal(handle.read_rows(3, 9).toarray()[:, :G], COUNTS[3:9])


def test_index_under_another_name(tmp_path: Path) -> None:
    adata = make_adata()
    adata.obs.index.name = "barcode"
    adata.write_h5ad(tmp_path / "a.h5ad")
    with H5ad(tmp_path / "a.h5ad") as source:
        assert source.obs_names().tolist() == adata.obs_names.tolist()
        assert "barcode" not in source.obs_keys()


def test_categorical_and_nullable_index(tmp_path: Path) -> None:
    path = tmp_path / "a.h5ad"
    with h5py.File(path, "w") as file:
        file["X"] = np.ones((3, 2), "f4")
        obs = file.create_group("obs")
        obs.attrs["_index"] = b"_index"
        index = obs.create_group("_index")
        index["codes"], index["categories"] = np.array([1, 0, 1], "i1"), np.array([b"a", b"b"])
        var = file.create_group("var")
        var.attrs["_index"] = "_index"
        names = var.create_group("_index")
        names["values"], names["mask"] = ["g0", "g1"], np.zeros(2, bool)
    with H5ad(path) as source:
        assert source.obs_names().tolist() == ["b", "a", "b"]
        assert source.var_names().tolist() == ["g0", "g1"]
        assert source.n_cells == 3


def test_oldest_layout_compound_arrays(tmp_path: Path) -> None:
    """Layout of anndata 0.6: compound obs and var, codes with categories in uns, h5sparse attributes, raw.X."""
    path = tmp_path / "a.h5ad"
    matrix = sp.csr_matrix(COUNTS)
    with h5py.File(path, "w") as file:
        obs = np.zeros(N, dtype=[("index", "S8"), ("louvain", "i1"), ("depth", "f4")])
        obs["index"] = [f"c{i}".encode() for i in range(N)]
        obs["louvain"] = np.arange(N) % 3 - 1
        obs["depth"] = np.arange(N)
        file["obs"] = obs
        var = np.zeros(G, dtype=[("index", "S8")])
        var["index"] = [f"g{i}".encode() for i in range(G)]
        file["var"] = file["raw.var"] = var
        file["uns/louvain_categories"] = np.array([b"B", b"T"])
        obsm = np.zeros(N, dtype=[("X_pca", "f4", (4,))])
        obsm["X_pca"] = np.arange(4)
        file["obsm"] = obsm
        for name in ("X", "raw.X"):
            group = file.create_group(name)
            group.attrs["h5sparse_format"], group.attrs["h5sparse_shape"] = "csr", (N, G)
            for part in ("data", "indices", "indptr"):
                group[part] = getattr(matrix, part)
    with H5ad(path) as source:
        assert source.obs_names().tolist() == [f"c{i}" for i in range(N)]
        assert source.obs_keys() == ("louvain", "depth")
        assert source.obs_column("louvain").tolist()[:4] == [None, "B", "T", None]
        np.testing.assert_array_equal(source.obs_column("depth"), np.arange(N))
        assert source.var_names("raw/X").tolist() == [f"g{i}" for i in range(G)]
        assert source.matrices() == ("X", "raw/X")
        np.testing.assert_array_equal(source.obsm("X_pca"), np.tile(np.arange(4), (N, 1)))
        np.testing.assert_array_equal(source.matrix("raw/X").read_rows(0, N).toarray(), COUNTS)


def test_categories_by_reference(tmp_path: Path) -> None:
    """Layout of anndata 0.7: categories in a group of their own, pointed at by an attribute."""
    path = tmp_path / "a.h5ad"
    with h5py.File(path, "w") as file:
        file["X"] = np.ones((3, 1), "f4")
        file["var/_index"] = ["g"]
        obs = file.create_group("obs")
        obs.attrs["_index"] = "_index"
        obs["_index"], obs["kind"] = ["a", "b", "c"], np.array([1, -1, 0], "i1")
        obs["__categories/kind"] = ["T", "B"]
        obs["kind"].attrs["categories"] = obs["__categories/kind"].ref
    with H5ad(path) as source:
        assert source.obs_column("kind").tolist() == ["B", None, "T"]
        assert source.obs_keys() == ("kind",)


def test_what_is_no_h5ad_is_refused_with_a_hint(tmp_path: Path) -> None:
    good = tmp_path / "good.h5ad"
    make_adata().write_h5ad(good)
    (tmp_path / "empty.h5ad").touch()
    (tmp_path / "text.h5ad").write_text("cell\tgene\n" * 100)
    (tmp_path / "cut.h5ad").write_bytes(good.read_bytes()[:-2000])
    (tmp_path / "store.zarr").mkdir()
    (tmp_path / "store.zarr" / ".zgroup").touch()
    with h5py.File(tmp_path / "tenx.h5", "w") as file:
        file.create_group("matrix")
    cases = {
        "nothing.h5ad": "no file",
        "empty.h5ad": r"0 bytes",
        "text.h5ad": "not an HDF5 file",
        "cut.h5ad": "cut short",
        "store.zarr": "zarr store",
        "tenx.h5": "read_10x_h5",
    }
    for name, text in cases.items():
        with pytest.raises(InputError, match=text):
            open_source(tmp_path / name)
    with pytest.raises(InputError, match="expected the path"):
        open_source(COUNTS)  # type: ignore[arg-type]


def test_damaged_matrices_are_refused(written: Path) -> None:
    with h5py.File(written, "r+") as file:
        file["X/indptr"][5] = 10**6
        file["layers/counts/indices"][0] = 99
        file["raw/X"].attrs["shape"] = (N, 5)
        file["layers/odd/x"] = 1
    with H5ad(written) as source:
        with pytest.raises(InputError, match="indptr"):
            source.matrix("X").read_rows(0, 2)
        with pytest.raises(InputError, match="indices outside"):
            source.matrix("layers/counts").read_rows(0, 2)
        with pytest.raises(InputError, match="obs and var name"):
            source.matrix("raw/X")
        with pytest.raises(InputError, match="expected a CSR, CSC or dense"):
            source.matrix("layers/odd")


def test_file_is_never_changed(written: Path) -> None:
    before = written.read_bytes()
    written.chmod(0o444)
    with H5ad(written) as source:
        for where in source.matrices():
            source.matrix(where).read_rows(0, N)
    assert written.read_bytes() == before
