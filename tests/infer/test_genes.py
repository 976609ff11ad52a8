"""Gene matching: names, ids, duplicates, other features, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from scrcl_infer.contract import GeneTable
from scrcl_infer.errors import GeneOverlapError, InputError
from scrcl_infer.gene_names import clean_name, guess_species
from scrcl_infer.genes import GeneMatch, match_genes
from scrcl_infer.h5ad import open_source

SYMBOLS = ("CD3E", "MS4A1", "NKG7", "LYZ", "C1orf56", "HLA-DRA", "PPBP", "GNLY")
IDS = tuple(f"ENSG{i:011d}" for i in range(8))
MODEL = GeneTable(SYMBOLS, SYMBOLS, IDS, (0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05), "Homo sapiens")


def match(names: Any, *, model: GeneTable = MODEL, var: dict[str, Any] | None = None, **options: Any) -> GeneMatch:
    frame = pd.DataFrame(var or {}, index=pd.Index([str(name) for name in names]))
    with open_source(anndata.AnnData(np.ones((2, len(frame)), np.float32), var=frame)) as source:
        return match_genes(source, "X", model, **options)


def test_symbols_in_another_order_with_strangers() -> None:
    got = match(["LYZ", "STRANGER", "CD3E", "MS4A1"])
    assert got.columns.tolist() == [3, -1, 0, 1]
    assert got.columns.dtype == np.int32
    assert got.found.tolist() == [True, True, False, True] + [False] * 4
    assert (got.report.n_model, got.report.n_found, got.report.n_summed) == (8, 3, 0)
    assert got.report.weighted_overlap == pytest.approx(0.6)
    assert got.report.matched_by == "var_names as names"
    assert got.report.missing_top == ("NKG7", "C1orf56", "HLA-DRA", "PPBP", "GNLY")


@pytest.mark.parametrize("suffix", ["", ".7", ".12_PAR_Y"])
def test_ensembl_ids_with_versions(suffix: str) -> None:
    got = match([f"{name}{suffix}" for name in IDS])
    assert got.columns.tolist() == list(range(8))
    assert got.report.matched_by == "var_names as Ensembl ids"


def test_versioned_names_of_the_model() -> None:
    names = tuple(f"{name}.3" for name in IDS)
    got = match(IDS, model=GeneTable(names, ("",) * 8, ("",) * 8, (0.0,) * 8))
    assert got.columns.tolist() == list(range(8))
    assert got.report.weighted_overlap == pytest.approx(1)


def test_genome_prefixes() -> None:
    assert match([f"GRCh38_{s}" for s in SYMBOLS]).report.n_found == 8
    assert clean_name("hg19___CD3E") == "CD3E"
    assert clean_name(" CD3E ") == "CD3E"
    assert clean_name("ENSMUSG00000000001.4") == "ENSMUSG00000000001"
    assert clean_name("AC107638.2") == "AC107638.2"


@pytest.mark.parametrize("dtype", ["object", "category"])
def test_symbols_in_a_column(dtype: str) -> None:
    var = {"n": range(8), "feature_name": pd.Series(SYMBOLS, index=[str(i) for i in range(8)], dtype=dtype)}
    got = match(range(8), var=var)
    assert got.columns.tolist() == list(range(8))
    assert got.report.matched_by == "var['feature_name'] as names"


def test_a_second_column_fills_in() -> None:
    names = [*SYMBOLS[:6], "old1", "old2"]
    got = match(names, var={"gene_ids": list(IDS)})
    assert got.report.n_found == 8
    assert got.columns.tolist() == list(range(8))


def test_a_second_column_never_moves_or_doubles_what_is_matched() -> None:
    got = match([*SYMBOLS[:7], "other"], var={"alias": [*reversed(SYMBOLS[:7]), "CD3E"]})
    assert got.columns.tolist() == [0, 1, 2, 3, 4, 5, 6, -1]


@pytest.mark.filterwarnings("ignore:Variable names are not unique:UserWarning")
def test_duplicates_are_summed() -> None:
    got = match([*IDS[:4], f"{IDS[0]}.2_PAR_Y", IDS[1]])
    assert got.columns.tolist() == [0, 1, 2, 3, 0, 1]
    assert (got.report.n_found, got.report.n_summed) == (4, 2)


def test_case_is_ignored_within_a_species() -> None:
    got = match(["CD3E", "MS4A1", "NKG7", "LYZ", "C1ORF56", "hla-dra"])
    assert got.columns.tolist() == [0, 1, 2, 3, 4, 5]
    assert "regardless of case" in got.report.matched_by


def test_mouse_genes_are_no_human_genes() -> None:
    with pytest.raises(GeneOverlapError) as caught:
        match([s.capitalize() for s in SYMBOLS] + ["Actb", "Gapdh"])
    assert "look like mouse genes; the model is human" in str(caught.value)
    assert caught.value.exit_code == 4


def test_refusal_shows_both_sides() -> None:
    with pytest.raises(GeneOverlapError) as caught:
        match(["AAA1", "BBB1", "PPBP"], var={"kind": ["x", "y", "z"]})
    text = str(caught.value)
    for part in ("1 of the model's 8", "5.0 %", "20 %", "'AAA1'", "'x'", "'CD3E'", "--gene-column"):
        assert part in text
    assert match(["AAA1", "BBB1", "PPBP"], min_overlap=0.01).report.n_found == 1
    with pytest.raises(GeneOverlapError):
        match(["AAA1"], min_overlap=0.0)
    with pytest.raises(GeneOverlapError, match="by numbers"):
        match(range(30))


def test_other_features_are_left_out() -> None:
    kinds = ["Gene Expression", "Antibody Capture", "Gene Expression", "CRISPR Guide Capture"]
    for key in ("feature_types", "feature_type"):
        got = match(["CD3E", "MS4A1", "LYZ", "guide"], var={key: kinds}, min_overlap=0.1)
        assert got.columns.tolist() == [0, -2, 3, -2]
        assert got.report.n_dropped_features == 2
        assert not got.found[1]


def test_genes_without_a_kind_are_genes() -> None:
    kinds = ["Gene Expression", None, float("nan"), "Antibody Capture"]
    assert match(["CD3E", "MS4A1", "LYZ", "CD4"], var={"feature_types": kinds}).columns.tolist() == [0, 1, 3, -2]


def test_biotypes_are_no_other_features() -> None:
    got = match(["CD3E", "MS4A1"], var={"feature_type": ["protein_coding", "lncRNA"]})
    assert got.columns.tolist() == [0, 1]


def test_gene_column_is_obeyed() -> None:
    var = {"mine": list(reversed(SYMBOLS)), "n": range(8)}
    assert match(SYMBOLS, var=var, gene_column="mine").columns.tolist() == list(range(7, -1, -1))
    assert match(SYMBOLS, var=var, gene_column="var_names").columns.tolist() == list(range(8))
    with pytest.raises(InputError, match=r"has no .nope.\. It has: mine, n"):
        match(SYMBOLS, var=var, gene_column="nope")
    with pytest.raises(InputError, match="holds numbers"):
        match(SYMBOLS, var=var, gene_column="n")


def test_missing_names_in_a_column() -> None:
    got = match(range(3), var={"symbol": ["CD3E", None, "MS4A1"]})
    assert got.columns.tolist() == [0, -1, 1]


@pytest.mark.parametrize(
    ("names", "species"),
    [
        (["CD3E", "MS4A1", "C1orf56", "HLA-DRA", "RP11-34P13.7"], "Homo sapiens"),
        (["Cd3e", "Ms4a1", "H2-Aa", "Gm1992", "Lyz2"], "Mus musculus"),
        (["ENSG00000000003", "ENSG00000000005"], "Homo sapiens"),
        (["ENSMUSG00000000001"], "Mus musculus"),
        (["unc-54", "myo-3", "lin-12", "egl-20"], "Caenorhabditis elegans"),
        (["tp53", "actb1", "gata1a", "sox10"], "Danio rerio"),
        (["FBgn0000001"], "Drosophila melanogaster"),
        (["0", "1", "g2", "gene_3"], "unknown"),
        (["CD3E", "Cd3e"], "unknown"),
        ([], "unknown"),
    ],
)
def test_guess_species(names: list[str], species: str) -> None:
    assert guess_species(names) == species


@pytest.mark.parametrize("spell", [str.lower, str.title, str.swapcase])
def test_ids_are_known_in_any_case_and_with_versions(spell: Callable[[str], str]) -> None:
    got = match([f"{spell(name)}.{i}" for i, name in enumerate(IDS)])
    assert got.columns.tolist() == list(range(8))
    assert clean_name(spell("WBGene00006763.1")) == "WBGene00006763"
    assert clean_name(spell("FBgn0000001")) == "FBgn0000001"


def test_a_file_in_mixed_case_is_read_regardless_of_case() -> None:
    got = match(["cd3e", "Ms4a1", "NKG7", "lyz", "c1ORF56", "HLA-dra", "Ppbp", "GNLY"])
    assert got.columns.tolist() == list(range(8))
    assert got.report.weighted_overlap == pytest.approx(1)


def test_small_letters_are_read_where_nearly_all_genes_are_found() -> None:
    """Eight of eight: a human file in small letters. Two of eight: more like the genes of a fish."""
    lower = [symbol.lower() for symbol in SYMBOLS]
    assert match(lower).columns.tolist() == list(range(8))
    with pytest.raises(GeneOverlapError, match="look like zebrafish genes"):
        match(["cd3e", "ms4a1", "tp53", "sox10", "gata1a", "actb1"])


def test_ids_decide_on_the_species_before_symbols_do() -> None:
    """Symbols of a mouse in capitals are read, for the ids beside them are those of a mouse."""
    mouse = GeneTable(("Cd3e", "Ms4a1"), ("Cd3e", "Ms4a1"), ("", ""), (0.5, 0.5), "Mus musculus")
    ids = ["ENSMUSG00000000001", "ENSMUSG00000000002"]
    assert match(["CD3E", "MS4A1"], model=mouse, var={"gene_ids": ids}).columns.tolist() == [0, 1]
    with pytest.raises(GeneOverlapError, match="look like human genes; the model is mouse"):
        match(["CD3E", "MS4A1"], model=mouse)


def test_a_model_of_one_kind_of_name_says_so_to_a_file_of_the_other() -> None:
    blank = ("",) * 8
    by_symbol = GeneTable(SYMBOLS, SYMBOLS, blank, MODEL.evidence, "Homo sapiens")
    by_id = GeneTable(IDS, blank, IDS, MODEL.evidence, "Homo sapiens")
    for model, names in ((by_symbol, IDS), (by_id, SYMBOLS)):
        with pytest.raises(GeneOverlapError, match=r"one kind of name and the model knows the other.*--gene-ids"):
            match(names, model=model)
    with pytest.raises(GeneOverlapError) as caught:
        match([f"OTHER{i}X" for i in range(8)], model=by_symbol)
    assert "one kind" not in str(caught.value)
