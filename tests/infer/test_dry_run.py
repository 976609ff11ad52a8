"""`scrcl-assign --dry-run` refuses what the run itself refuses, in the same words, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import pytest

from tests.infer.test_cli import Run

LONG = "o" * 245
"""A name so long that the hidden file beside it cannot be made, whoever runs the test."""


@pytest.mark.parametrize("column", ["scrcl_margin", "scrcl_strangeness"])
def test_columns_that_something_else_wrote_are_refused_as_by_the_run(run: Run, query: Path, column: str) -> None:
    adata = ad.read_h5ad(query)
    adata.obs[column] = "by hand"
    adata.write_h5ad(query)
    words = (query, "-m", "tiny", "-o", query.parent / "o.h5ad")
    dry, wet = run(*words, "--dry-run"), run(*words)
    assert dry == wet
    assert (dry[0], column in dry[2]) == (6, True)
    assert run(*words, "--dry-run", "--force")[0] == 0
    assert run(query, "-m", "tiny", "-o", query.parent / "o.tsv", "--dry-run")[0] == 0, "a table has room for all"
    assert {p.name for p in query.parent.iterdir()} == {"new.h5ad", "models"}


@pytest.mark.parametrize("option", ["-o", "--report", "--explain"])
def test_a_file_that_cannot_be_made_is_refused(run: Run, query: Path, option: str) -> None:
    path = query.parent / f"{LONG}.tsv"
    code, out, err = run(query, "-m", "tiny", option, path, "--dry-run")
    assert (code, out) == (6, "")
    assert f"Cannot write '{path}': File name too long." in err
    assert {p.name for p in query.parent.iterdir()} == {"new.h5ad", "models"}
