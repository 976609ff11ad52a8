"""`scrcl_infer.atomic`: a file is whole or absent, whatever happens on the way."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from scrcl_infer import atomic
from scrcl_infer.atomic import HiddenFile, output_errors, write_atomically
from scrcl_infer.errors import OutputError


def test_a_hidden_file_appears_only_when_committed(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with HiddenFile(path, force=False) as hidden:
        hidden.path.write_text("all of it")
        assert not path.exists()
        assert hidden.path.parent == path.parent
        hidden.commit()
    assert path.read_text() == "all of it"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_leaving_early_leaves_nothing_and_keeps_the_old_file(tmp_path: Path, kind: type[BaseException]) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    with pytest.raises(kind), HiddenFile(path, force=True) as hidden:  # noqa: PT012 - the write is part of it
        hidden.path.write_text("half")
        raise kind
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_target_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with pytest.raises(OutputError, match="exists"), HiddenFile(path, force=False) as hidden:  # noqa: PT012
        path.write_text("somebody else's")
        hidden.commit()
    assert path.read_text() == "somebody else's"


def test_the_mode_of_the_target_follows_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "r.json", b"{}", force=False)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "r.json").stat().st_mode) == 0o640


def test_write_atomically_respects_force(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_atomically(path, b"1", force=False)
    with pytest.raises(OutputError, match="exists"):
        write_atomically(path, b"2", force=False)
    assert path.read_bytes() == b"1"
    write_atomically(path, b"2", force=True)
    assert path.read_bytes() == b"2"


def test_a_full_disk_is_an_output_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic, "_sync", full)
    with pytest.raises(OutputError, match=r"No space left on device\. Free space"):
        write_atomically(tmp_path / "r.json", b"1", force=False)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_pipe_is_not_an_output_error() -> None:
    with pytest.raises(BrokenPipeError), output_errors(Path("-")):
        raise BrokenPipeError


def test_a_signal_that_comes_while_the_file_is_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Path.open

    def interrupted(path: Path, *words: str) -> None:
        make(path, *words).close()
        raise SystemExit(143)

    monkeypatch.setattr(Path, "open", interrupted)
    with pytest.raises(SystemExit), HiddenFile(tmp_path / "o.h5ad", force=False):
        pass
    assert list(tmp_path.iterdir()) == []
