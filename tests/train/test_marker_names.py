"""Names from marker genes, on simulated cells whose types and markers are known."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scrcl_infer.contract import Population
from scrcl_infer.errors import InputError
from scrcl_train.data import TrainingData, read_training_data
from scrcl_train.marker_names import (
    MarkerScores,
    apply_marker_names,
    choose_type,
    describe_scores,
    find_genes,
    format_scores,
    read_markers,
    score_populations,
)

TYPES = ("T naive", "T memory", "B", "Monocyte", "NK", "Platelet")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, simulated: AnnData) -> TrainingData:
    path = tmp_path_factory.mktemp("markers") / "cells.h5ad"
    simulated.write_h5ad(path)
    return read_training_data(path)


@pytest.fixture(scope="module")
def truth(simulated: AnnData) -> np.ndarray:
    codes: np.ndarray = simulated.obs["cell_type"].cat.codes.to_numpy().astype(np.int64)
    return codes


@pytest.fixture(scope="module")
def markers(simulated: AnnData, truth: np.ndarray) -> dict[str, tuple[str, ...]]:
    """The ten genes with the highest fold change of each type over the mean of the others, from the counts."""
    counts = simulated.X.toarray()
    share = np.stack([counts[truth == k].sum(axis=0) / counts[truth == k].sum() for k in range(6)]) + 1e-4
    found = {}
    for k, name in enumerate(TYPES):
        fold = share[k] / np.delete(share, k, axis=0).max(axis=0)
        found[name] = tuple(simulated.var_names[np.argsort(-fold)[:10]])
    return found


def test_populations_that_are_types_get_their_names(
    data: TrainingData, truth: np.ndarray, markers: dict[str, tuple[str, ...]]
) -> None:
    found = score_populations(data, truth, find_genes(data, markers))
    assert [found.types[i] for i in found.chosen] == list(TYPES)
    # Whatever the numbers of the populations, and also where a type was split in two.
    split = np.where((truth == 2) & (np.arange(truth.size) % 2 == 0), 6, (truth + 1) % 6)
    found = score_populations(data, split, find_genes(data, markers))
    assert [found.types[i] for i in found.chosen] == [TYPES[5], *TYPES[:5], "B"]


def test_scores_are_scanpys_in_standard_deviations(
    data: TrainingData, simulated: AnnData, truth: np.ndarray, markers: dict[str, tuple[str, ...]]
) -> None:
    import scanpy as sc

    adata = simulated.copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    found = score_populations(data, truth, find_genes(data, markers), seed=3)
    for i, name in enumerate(found.types):
        sc.tl.score_genes(adata, list(markers[name]), score_name="expected", random_state=3)
        score = adata.obs["expected"].to_numpy()
        score = (score - score.mean()) / score.std()
        expected = [score[truth == k].mean() for k in range(6)]
        np.testing.assert_allclose(found.scores[:, i], expected, rtol=1e-4, atol=1e-5)


def test_a_population_of_no_listed_type_keeps_its_own_name(
    data: TrainingData, truth: np.ndarray, markers: dict[str, tuple[str, ...]]
) -> None:
    some = {name: genes for name, genes in markers.items() if name in ("B", "NK")}
    found = score_populations(data, truth, find_genes(data, some))
    assert [found.types[i] if i >= 0 else "" for i in found.chosen] == ["", "", "B", "", "NK", ""]


def test_a_name_needs_a_clear_lead() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=400)
    scores = np.stack([1.0 + noise, 0.9 + rng.normal(size=400) * 0.01 + noise, np.zeros(400)], axis=1)
    assert choose_type(scores) == 0
    assert choose_type(scores[:, [1, 0, 2]]) == 1
    scores[:, 1] += 0.06  # leads by .04, however sure that is
    assert choose_type(scores) == -1
    wide = np.stack([0.1 + 3 * rng.permutation(np.linspace(-1, 1, 100)), np.zeros(100) - 1], axis=1)
    assert choose_type(wide) == -1  # leads 0 by .1, and its standard error is .17
    assert choose_type(np.full((50, 3), -0.5)) == -1
    assert choose_type(np.full((1, 3), 2.0)) == -1  # one cell has no error


def test_genes_are_found_by_symbol_name_or_id_in_any_case(data: TrainingData) -> None:
    ids = tuple(f"ENSG{i:011d}" for i in range(len(data.gene_names)))
    known = replace(data, ensembl_ids=ids, symbols=tuple(f"SYM{i}" for i in range(len(ids))))
    table = {"a": ("sym3", "ensg00000000005.2", "GENE0008"), "b": ("Sym3", "SYM3", "nothing", "SYM9")}
    assert find_genes(known, table) == {"a": (3, 5, 7), "b": (3, 9)}


def test_types_of_which_too_little_is_known_are_left_out_and_said(
    data: TrainingData, caplog: pytest.LogCaptureFixture
) -> None:
    silent = data.counts.copy().tolil()
    silent[:, 4] = 0
    table = {"one of two": ("Gene0001", "Gone1"), "only one": ("Gene0002",), "silent": ("Gene0005",)}
    with caplog.at_level(logging.WARNING):
        found = find_genes(replace(data, counts=silent.tocsr()), table)
    assert found == {"only one": (1,)}
    assert "Marker genes of one of two that are not expressed in the data: Gone1." in caplog.text
    assert "one of two is left out" in caplog.text
    assert "silent is left out" in caplog.text
    with pytest.raises(InputError, match="The table has Gone1; the data has Gene0001"):
        find_genes(data, {"x": ("Gone1",)})


def test_tables_are_read_and_refused(tmp_path: Path) -> None:
    table = tmp_path / "markers.tsv"
    table.write_text("gene\ttype\tsource\nMS4A1\tB\tx\nCD79A\tB\ty\nMS4A1\tB\tz\nCD3D\tT\t\n")
    assert read_markers(table) == {"B": ("MS4A1", "CD79A"), "T": ("CD3D",)}
    table.write_text("B,MS4A1\n")
    with pytest.raises(InputError, match="expected a header such as 'type,gene'"):
        read_markers(table)
    table.write_text("type,gene\nunknown,MS4A1\n")
    with pytest.raises(InputError, match="answer for rejected cells"):
        read_markers(table)


def test_what_is_told_and_kept() -> None:
    populations = (Population("P2", "P2", 30), Population("P1", "P1", 70))
    found = MarkerScores(("B", "T, naive"), np.array([[0.1, 0.12], [1.5, -0.2]]), (-1, 0))
    named = apply_marker_names(populations, found)
    assert [p.cell_type for p in named] == ["P2", "B"]
    assert describe_scores(named, found) == (
        "P1 (70 cells): B (scores B 1.50, T, naive -0.20)",
        "P2 (30 cells): not named (scores T, naive 0.12, B 0.10)",
        "No population is named T, naive.",
    )
    import io

    table = pd.read_csv(io.StringIO(format_scores(named, found)))
    assert table.values.tolist() == [
        ["P1", 70, "B", 1.5, 1],
        ["P1", 70, "T, naive", -0.2, 0],
        ["P2", 30, "T, naive", 0.12, 0],
        ["P2", 30, "B", 0.1, 0],
    ]
