"""A run that cannot end well is refused before it begins, and nothing of an earlier run is touched by the refusal."""

from __future__ import annotations

import gzip
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from anndata import AnnData

from scrcl_infer.errors import InputError, OutputError, TrainingError
from scrcl_train.checkpoint import RUN_FILES
from scrcl_train.options import TrainOptions
from scrcl_train.preflight import check_run


@pytest.fixture
def cells(tmp_path: Path, simulated: AnnData) -> Path:
    simulated[:60].copy().write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The folder of an earlier run of the same name."""
    folder = tmp_path / "model.run"
    folder.mkdir()
    for name in RUN_FILES:
        (folder / name).write_text("kept")
    return folder


def test_nothing_is_made_by_the_check(cells: Path, tmp_path: Path) -> None:
    assert check_run(cells, tmp_path / "model", TrainOptions(n_populations=60)) == tmp_path / "model.run"
    assert [path.name for path in tmp_path.iterdir()] == ["cells.h5ad"]


@pytest.mark.parametrize("option", ["gene_ids", "card_notes"])
def test_a_packed_table_or_note_is_refused_before_the_work(cells: Path, tmp_path: Path, option: str) -> None:
    """The notes are read when all else is done: a run of hours would have been lost."""
    packed = tmp_path / "packed.gz"
    packed.write_bytes(gzip.compress(b"ENSG00000156738,MS4A1"))
    with pytest.raises(InputError, match=r"packed\.gz is no UTF-8 text"):
        check_run(cells, tmp_path / "model", TrainOptions(**{option: packed}))  # type: ignore[arg-type]


def test_a_refusal_leaves_an_earlier_run_alone(cells: Path, tmp_path: Path, earlier: Path) -> None:
    forced = TrainOptions(force=True)
    mistakes = {
        InputError: [(tmp_path / "missing.h5ad", forced), (cells, replace(forced, card_notes=tmp_path / "no.md"))],
        TrainingError: [(cells, replace(forced, n_populations=61)), (cells, replace(forced, device="tpu"))],
        OutputError: [(cells, replace(forced, write_h5ad=cells))],
    }
    if not torch.cuda.is_available():
        mistakes[TrainingError].append((cells, replace(forced, device="cuda")))
    for error, cases in mistakes.items():
        for path, options in cases:
            with pytest.raises(error):
                check_run(path, tmp_path / "model", options)
    assert sorted(path.name for path in earlier.iterdir()) == sorted(RUN_FILES)
    check_run(cells, tmp_path / "model", forced)
    assert list(earlier.iterdir()) == []


def test_what_is_no_h5ad_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cells.h5ad").write_text("cells")
    with pytest.raises(InputError, match="not an HDF5 file"):
        check_run(tmp_path / "cells.h5ad", tmp_path / "model", TrainOptions())


def test_a_file_without_cells_is_refused(tmp_path: Path, simulated: AnnData) -> None:
    simulated[:0].copy().write_h5ad(tmp_path / "none.h5ad")
    with pytest.raises(InputError, match="holds no cells"):
        check_run(tmp_path / "none.h5ad", tmp_path / "model", TrainOptions())


@pytest.mark.parametrize("names", ["{}", "g{}", "gene_{}"])
def test_bare_numbers_for_names_are_refused_where_names_are_known(
    tmp_path: Path, simulated: AnnData, caplog: pytest.LogCaptureFixture, names: str
) -> None:
    adata = simulated[:60].copy()
    symbols = list(adata.var_names)
    adata.var_names = [names.format(i) for i in range(adata.n_vars)]
    adata.var = adata.var.iloc[:, :0]
    adata.write_h5ad(tmp_path / "numbers.h5ad")
    check_run(tmp_path / "numbers.h5ad", tmp_path / "model", TrainOptions())
    assert "named by numbers" in caplog.text
    adata.var["gene_symbol"] = symbols
    adata.write_h5ad(tmp_path / "both.h5ad")
    if names != "{}":  # such a name may be one that the column's ids go with
        check_run(tmp_path / "both.h5ad", tmp_path / "model", TrainOptions())
        return
    with pytest.raises(InputError, match=r"has their names in 'gene_symbol'.*--gene-column gene_symbol"):
        check_run(tmp_path / "both.h5ad", tmp_path / "model", TrainOptions())
    check_run(tmp_path / "both.h5ad", tmp_path / "model", TrainOptions(gene_column="gene_symbol"))


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    # Whoever runs the tests may be allowed to write anywhere.
    monkeypatch.setattr("tempfile.TemporaryDirectory", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        check_run(cells, tmp_path / "new" / "model", TrainOptions())


def test_the_annotated_copy_has_a_name_that_says_what_it_is(cells: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"found\.csv: --write-h5ad writes an \.h5ad"):
        check_run(cells, tmp_path / "model", TrainOptions(write_h5ad=tmp_path / "found.csv"))
