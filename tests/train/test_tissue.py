"""Pictures of domains on the tissue: what is drawn where, and what is refused."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from scrcl_infer.errors import InputError, OutputError
from scrcl_infer.spatial import Spots
from scrcl_train import tissue
from scrcl_train.tissue import draw_tissue, draw_tissue_file
from tests.make_section import layered_section


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    both = ad.concat([layered_section(seed=1, side=8), layered_section(seed=2, side=8, name="B")])
    both.obs["scrcl_population"] = both.obs["layer"].astype("category").cat.rename_categories(lambda x: x + "!")
    both.obs.loc[both.obs_names[3], "scrcl_population"] = np.nan
    path = tmp_path_factory.mktemp("tissue") / "found.h5ad"
    both.write_h5ad(path)
    return path


def size(png: Path) -> tuple[int, int]:
    return struct.unpack(">II", png.read_bytes()[16:24])  # type: ignore[return-value]


def test_one_row_per_section_and_one_column_per_grouping(found: Path, tmp_path: Path) -> None:
    columns = ["scrcl_population", "layer"]
    one = draw_tissue_file(found, tmp_path / "one.png", columns=["layer"])
    four = draw_tissue_file(found, tmp_path / "four.png", columns=columns, section_key="slice")
    assert size(one) == (975, 750)
    assert size(four) == (1725, 1500)
    again = draw_tissue_file(found, tmp_path / "again.png", columns=columns, section_key="slice")
    assert again.read_bytes() == four.read_bytes()


def test_spots_are_drawn_where_they_lie_in_their_domains_colour(tmp_path: Path) -> None:
    from matplotlib.image import imread

    places = np.array([[x, y] for y in range(10) for x in range(10)], dtype=float)
    half = np.where(places[:, 1] < 5, "P1", "unknown").astype(object)
    draw_tissue(Spots(places, np.zeros(100, np.int64)), {"domain": half}, tmp_path / "half.png")
    picture = imread(tmp_path / "half.png")[:, :700, :3]
    blue = (picture[..., 2] > picture[..., 0] + 0.3).any(axis=1)
    grey = (np.abs(picture - 0.8).max(axis=2) < 0.02).any(axis=1)
    assert blue.any()
    assert grey.any()
    # y grows downwards: P1 has the small ones and lies on top.
    assert np.flatnonzero(blue).mean() < np.flatnonzero(grey).mean()


def test_spots_that_the_model_rejected_have_no_population(
    found: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[dict[str, np.ndarray]] = []
    monkeypatch.setattr(tissue, "draw_tissue", lambda _, groups, *args, **kwargs: drawn.append(dict(groups)))
    adata = ad.read_h5ad(found)
    adata.obs["scrcl_cell_type"] = np.where(np.arange(adata.n_obs) % 5 == 0, "unknown", "some type")
    adata.write_h5ad(tmp_path / "assigned.h5ad")
    for path in (found, tmp_path / "assigned.h5ad"):
        draw_tissue_file(path, tmp_path / "out.png", columns=["scrcl_population", "layer"])
    plain, assigned = drawn
    rejected = np.arange(adata.n_obs) % 5 == 0
    assert set(assigned["scrcl_population"][rejected]) == {"unknown"}
    assert (assigned["scrcl_population"][~rejected] == plain["scrcl_population"][~rejected]).all()
    assert (plain["scrcl_population"] == "unknown").sum() == 1
    assert (assigned["layer"] == plain["layer"]).all()


def test_a_lone_spot_is_drawn(tmp_path: Path) -> None:
    lone = Spots(np.zeros((1, 2)), np.zeros(1, np.int64))
    draw_tissue(lone, {"domain": np.array(["P1"], dtype=object)}, tmp_path / "lone.svg")
    assert "<svg" in (tmp_path / "lone.svg").read_text()


def test_fractions_get_a_colour_bar_instead_of_a_name_each(found: Path, tmp_path: Path) -> None:
    from matplotlib.image import imread

    adata = ad.read_h5ad(found)
    adata.obs["scrcl_confidence"] = np.linspace(0, 1, adata.n_obs, dtype=np.float32)
    adata.obs.loc[adata.obs_names[0], "scrcl_confidence"] = np.nan
    adata.write_h5ad(tmp_path / "sure.h5ad")
    columns = ["layer", "scrcl_confidence"]
    drawn = draw_tissue_file(tmp_path / "sure.h5ad", tmp_path / "sure.png", columns=columns, section_key="slice")
    assert size(drawn) == (1725, 1500)
    colours = np.unique(imread(drawn)[:, 900:, :3].reshape(-1, 3), axis=0)
    ends = np.array([[0.267, 0.005, 0.329], [0.993, 0.906, 0.144], [0.8, 0.8, 0.8]])  # of viridis, and grey
    assert all(np.abs(colours - end).max(axis=1).min() < 0.03 for end in ends)


def test_what_cannot_be_drawn_is_refused(found: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"must end in one of \.png"):
        draw_tissue_file(found, tmp_path / "out.gif", columns=["layer"])
    with pytest.raises(InputError, match="no_such"):
        draw_tissue_file(found, tmp_path / "out.png", columns=["no_such"])
    (tmp_path / "taken.png").touch()
    with pytest.raises(OutputError, match="exists"):
        draw_tissue_file(found, tmp_path / "taken.png", columns=["layer"])
    adata = ad.read_h5ad(found)
    del adata.obsm["spatial"]
    adata.write_h5ad(tmp_path / "bare.h5ad")
    with pytest.raises(
        InputError, match=r"The coordinates .*obsm is empty\. Add an array \(spots, 2\) of that name\.$"
    ):
        draw_tissue_file(tmp_path / "bare.h5ad", tmp_path / "out.png", columns=["layer"])
    ad.read_h5ad(found)[:0].copy().write_h5ad(tmp_path / "none.h5ad")
    with pytest.raises(InputError, match="no spots"):
        draw_tissue_file(tmp_path / "none.h5ad", tmp_path / "out.png", columns=["layer"])


def test_the_command_prints_the_picture(found: Path, tmp_path: Path) -> None:
    code = "from scrcl_train.cli import main; main()"
    arguments = ["tissue", str(found), "-o", str(tmp_path / "out.png"), "--color", "scrcl_population, layer"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "out.png")
    assert size(tmp_path / "out.png") == (1725, 750)
