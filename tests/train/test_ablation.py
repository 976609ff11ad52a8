"""The ablation's whole recipe is the product's, and each variant changes what it says."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData

from benchmarks import ablation
from benchmarks.datasets import Cells
from scrcl_train.grouping import group_by_teacher
from scrcl_train.presets import get_preset
from scrcl_train.trainer import fit


@pytest.fixture(scope="module")
def cells(simulated: AnnData) -> Cells:
    counts = sp.csr_matrix(simulated.X, dtype=np.float32)
    genes = simulated.var_names.to_numpy().astype(object)
    return Cells("simulated", counts, genes, None, None, 5, "print")


def test_the_full_column_is_what_training_gives(cells: Cells) -> None:
    prepared = ablation.prepare(cells)
    found = ablation.run(prepared, cells, 3).clusters
    assert set(found) == {column.key for column in ablation.METHODS[0].columns}
    teacher = fit(prepared.full, get_preset("default"), seed=3)
    expected = group_by_teacher(prepared.full, teacher, n_populations=5, seed=3).labels
    # Numbers of populations may differ, cells that are together may not.
    pairs = set(zip(found["full"].tolist(), expected.tolist(), strict=True))
    assert len(pairs) == 5


def test_plain_components_are_those_before_shrinking(cells: Cells) -> None:
    prepared = ablation.prepare(cells)
    full, plain = prepared.full.components, prepared.plain.components
    assert full is not None
    assert plain is not None
    np.testing.assert_array_equal(plain.shrunk, full.scores)
    assert (full.shrunk != full.scores).any()
