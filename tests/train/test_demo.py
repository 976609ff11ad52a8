from __future__ import annotations

from pathlib import Path

import anndata as ad
import pytest

from scrcl_infer.errors import OutputError
from scrcl_train import demo
from scrcl_train.simulator import SimulatorConfig, simulate


def test_the_example_assigns_a_batch_that_it_never_saw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = SimulatorConfig(n_cells=500, n_genes=300)
    monkeypatch.setattr(demo, "simulate", lambda *, seed: simulate(small, seed=seed))
    result = demo.run_demo(tmp_path / "demo", seed=0)
    assert result.scores.accuracy > 0.8
    query, annotated = ad.read_h5ad(result.query_file), ad.read_h5ad(result.annotated)
    assert "cell_type" not in query.obs
    assert set(query.obs["batch"]) == {"batch2"}
    assert "scrcl_cell_type" in annotated.obs
    text = demo.format_result(result)
    for path in (result.bundle, result.query_file, result.annotated):
        assert path.exists()
        assert str(path) in text


def test_an_existing_folder_is_not_touched(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists"):
        demo.run_demo(tmp_path)
    assert list(tmp_path.iterdir()) == []
