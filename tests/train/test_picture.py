"""`scrcl_train.picture`: the same bytes for the same figure, and errors that say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from scrcl_infer.errors import OutputError
from scrcl_train.picture import save_picture


def draw() -> Figure:
    figure = Figure(figsize=(2, 2))
    figure.subplots().plot([0, 1], [1, 0])
    return figure


@pytest.mark.parametrize("ending", [".png", ".pdf", ".svg"])
def test_the_same_figure_gives_the_same_bytes_at_any_time(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{name}{ending}" for name in "ab"]
    for path, seconds in zip(paths, (1_000_000_000, 1_500_000_000), strict=True):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", str(seconds))
        save_picture(draw(), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in paths]


def test_it_is_replaced_on_request_only_and_written_where_it_can_be(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save_picture(draw(), path)
    with pytest.raises(OutputError, match="--force"):
        save_picture(draw(), path)
    save_picture(draw(), path, force=True)
    with pytest.raises(OutputError, match="does not exist"):
        save_picture(draw(), tmp_path / "nowhere" / "a.png")
    with pytest.raises(OutputError, match=r"must end in one of \.png, \.pdf, \.svg"):
        save_picture(draw(), tmp_path / "a.jpeg")
