"""Pictures of the smallest groups there can be: that they are drawn at all. Whether they are right is for the eye."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.figure import Figure

from scrcl_train import figures
from scrcl_train.figures import (
    choose_colours,
    draw_associated_genes,
    draw_dotplot,
    draw_heatmap,
    draw_overlap,
    draw_paga,
    draw_umap,
    order_names,
    shorten_names,
)

GROUPS = np.array(["P1"] * 4 + ["P2"], dtype=object)
RNG = np.random.default_rng(0)


def is_png(path: Path) -> bool:
    return path.read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def adata() -> AnnData:
    """Five cells, four genes of which one never varies; P2 has one cell."""
    values = RNG.random((5, 4)).astype(np.float32)
    values[:, 3] = 0
    names = ["A", "B", "C", "D"]
    adata = AnnData(values, obs=pd.DataFrame(index=list("vwxyz")), var=pd.DataFrame(index=names))
    adata.obs["group"] = pd.Categorical(GROUPS)
    return adata


def test_names_are_in_the_order_of_their_numbers() -> None:
    assert order_names({"P10", "P2", "P1", "B cell", "CD4 T", "CD14 Mono"}) == [
        "B cell", "CD4 T", "CD14 Mono", "P1", "P2", "P10",
    ]  # fmt: skip


def test_long_names_are_cut_and_stay_apart() -> None:
    longest = "a name of twenty-eight signs"
    alike = ["CD4-positive, alpha-beta memory T cell", "CD4-positive, alpha-beta memory B cell"]
    same = [f"{'x' * 30}{i}{'x' * 30}" for i in (1, 2)]
    short = shorten_names(["B cell", longest, longest + "!", *alike, *same])
    assert short[:3] == ["B cell", longest, "a name of twenty-eight sign…"]
    assert short[3:5] == ["CD4-positive, …memory T cell", "CD4-positive, …memory B cell"]
    assert short[5:] == same
    assert max(len(name) for name in short[:5]) <= 28


def test_no_name_runs_out_of_its_panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Figure] = []
    monkeypatch.setattr(figures, "save_picture", lambda figure, *_, **__: seen.append(figure))
    places = np.array([[0, 0], [1, 0], [5, 2], [10, 5]], dtype=np.float32)
    groups = np.array([f"{side} CD4-positive, alpha-beta memory T cell" for side in "abcd"], dtype=object)
    draw_umap(places, {"Populations": groups, "Cell types": groups}, tmp_path / "umap.png")
    seen[0].draw_without_rendering()
    for axis in seen[0].axes:
        panel = axis.get_window_extent()
        assert len(axis.texts) == 4
        for text in axis.texts:
            assert panel.x0 - 1 <= text.get_window_extent().x0
            assert text.get_window_extent().x1 <= panel.x1 + 1
            assert text.get_text().endswith("…")


def test_sixty_groups_have_sixty_colours_and_more_begin_anew() -> None:
    assert len(set(choose_colours(60))) == 60
    assert choose_colours(61)[60] == choose_colours(1)[0]


def test_a_population_without_markers_and_a_gene_that_never_varies_are_drawn(adata: AnnData, tmp_path: Path) -> None:
    top = {"P1": ["A", "B", "D"], "P2": []}
    draw_dotplot(adata, "group", top, tmp_path / "dots.png")
    draw_heatmap(adata, "group", top, tmp_path / "heat.png")
    assert is_png(tmp_path / "dots.png")
    assert is_png(tmp_path / "heat.png")


def test_populations_go_by_their_titles(adata: AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []

    def keep(figure: Figure, path: Path, *, force: bool) -> None:
        axes = figure.axes
        seen.append({text.get_text() for axis in axes for text in (*axis.get_xticklabels(), *axis.get_yticklabels())})

    monkeypatch.setattr(figures, "save_picture", keep)
    titles = {"P1": "P1 B cell"}
    top = {"P1": ["A"], "P2": ["B"]}
    draw_dotplot(adata, "group", top, tmp_path / "dots.png", titles=titles)
    draw_heatmap(adata, "group", top, tmp_path / "heat.png", titles=titles)
    listed = pd.DataFrame({"population": ["P1", "P2"], "gene": ["A", "B"], "log_difference": 1.0, "wilcoxon_rank": 1})
    draw_associated_genes(listed, tmp_path / "genes.png", titles=titles)
    assert len(seen) == 3
    for labels in seen:
        assert {"P1 B cell", "P2"} <= labels
        assert "P1" not in labels


def test_a_group_of_one_cell_is_drawn_and_the_same_data_give_the_same_bytes(tmp_path: Path) -> None:
    places = RNG.random((5, 2)).astype(np.float32)
    for name in ("a.png", "b.png"):
        draw_umap(places, {"Populations": GROUPS, "Cell types": GROUPS}, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    draw_umap(places + 1, {"Populations": GROUPS[::-1]}, tmp_path / "c.png")
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "c.png").read_bytes()
    assert is_png(tmp_path / "a.png")


def test_one_population_alone_is_drawn(tmp_path: Path) -> None:
    draw_paga(np.zeros((1, 1)), np.zeros((1, 2)), ["P1"], np.array([5]), tmp_path / "paga.png")
    assert is_png(tmp_path / "paga.png")


def test_the_associated_genes_drawn_are_the_first_that_are_higher_in_the_population(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Figure] = []
    monkeypatch.setattr(figures, "save_picture", lambda figure, *_, **__: seen.append(figure))
    listed = pd.DataFrame(
        [("P1", "low", -1.0), ("P1", "A", 0.5), ("P1", "B", 0.1), ("P2", "lower", -2.0), ("P1", "C", 2.0)],
        columns=["population", "gene", "log_difference"],
    ).assign(wilcoxon_rank=5.0)
    draw_associated_genes(listed, tmp_path / "genes.png", n_genes=2)
    axis = seen[0].axes[0]
    assert [(text.get_text(), *text.get_position()) for text in axis.texts] == [("A", 0, 0), ("B", 1, 0)]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["P1", "P2"]
    assert "higher" in axis.get_title()


def test_populations_without_a_rank_or_a_row_are_drawn_without_a_warning(tmp_path: Path) -> None:
    listed = pd.DataFrame(
        {"population": ["P1", "P1"], "gene": ["A", "B"], "log_difference": [1.0, np.nan], "wilcoxon_rank": np.nan}
    )
    draw_associated_genes(listed, tmp_path / "genes.png")
    compared = pd.DataFrame(
        {"population": ["P1", "P2", "P1"], "k": [10, 10, 20], "n_shared": [4, 1, 9], "expected": [1.0, 1.0, 4.0],
         "p_adjusted": [0.01, 0.9, 0.02]}
    )  # fmt: skip
    draw_overlap(compared, tmp_path / "overlap.png")
    assert is_png(tmp_path / "genes.png")
    assert is_png(tmp_path / "overlap.png")
