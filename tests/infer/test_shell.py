"""Exit codes, messages and streams of a command, seen from outside."""

from __future__ import annotations

import logging
import sys
from importlib import metadata
from typing import Annotated

import pytest
import typer

from scrcl_infer import errors
from scrcl_infer.shell import configure_logging, package_version, run, version_callback


def app_that(raises: BaseException | None) -> typer.Typer:
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

    @app.command()
    def work(
        number: int = 1,
        *,
        version: Annotated[bool, typer.Option("--version", callback=version_callback("thing"), is_eager=True)] = False,
    ) -> None:
        if raises is not None:
            raise raises
        typer.echo(number)

    return app


def run_with(monkeypatch: pytest.MonkeyPatch, arguments: list[str], raises: BaseException | None = None) -> int:
    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    return run(app_that(raises), prog="thing")


def test_success(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_with(monkeypatch, ["--number", "7"]) == 0
    assert capsys.readouterr() == ("7\n", "")


@pytest.mark.parametrize("name", errors.__all__)
def test_each_error_becomes_its_exit_code(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kind: type[errors.ScrclError] = getattr(errors, name)
    error = kind("found this; do that")
    error.add_note("in file x")
    assert run_with(monkeypatch, [], error) == kind.exit_code
    assert capsys.readouterr() == ("", "thing: error: found this; do that\n  in file x\n")


def test_exit_codes_are_those_of_the_tree() -> None:
    """The table in the docstring of `errors` is what users read."""
    assert errors.__doc__ is not None
    stated = {}
    for line in errors.__doc__.splitlines():
        words = line.strip(" │├└─").split()
        if len(words) > 1 and words[0] in errors.__all__:
            stated[words[0]] = int(words[1])
    assert stated == {name: getattr(errors, name).exit_code for name in errors.__all__}


@pytest.mark.parametrize("arguments", [["--nubmer", "7"], ["--number", "seven"], ["extra"]])
def test_wrong_usage_is_2(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(monkeypatch, arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Usage: thing" in err


def test_errors_of_the_file_system_are_messages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_with(monkeypatch, [], OSError(28, "No space left on device", "out.h5ad")) == 1
    assert capsys.readouterr().err == "thing: error: [Errno 28] No space left on device: 'out.h5ad'\n"


@pytest.mark.parametrize(("stop", "code"), [(SystemExit(), 0), (SystemExit(9), 9), (SystemExit("words"), 1)])
def test_exits_keep_their_code(stop: SystemExit, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_with(monkeypatch, [], stop) == code


def test_interruption_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_with(monkeypatch, [], KeyboardInterrupt()) == 130


def test_debug_keeps_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRCL_DEBUG", "1")
    with pytest.raises(errors.InputError):
        run_with(monkeypatch, [], errors.InputError("found"))


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        run_with(monkeypatch, [], ZeroDivisionError())


def test_version_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(metadata, "version", lambda _: "1.2.3")
    assert run_with(monkeypatch, ["--version"]) == 0
    assert capsys.readouterr() == ("thing 1.2.3\n", "")


def test_version_of_a_source_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert package_version() == "0+unknown"


@pytest.mark.parametrize("quiet", [False, True])
def test_messages_go_to_stderr(capsys: pytest.CaptureFixture[str], *, quiet: bool) -> None:
    for _ in range(2):  # a second call must not double the messages
        configure_logging(quiet=quiet)
    logging.getLogger("scrcl_infer.thing").info("progress")
    logging.getLogger("scrcl_train.thing").warning("careful")
    assert capsys.readouterr() == ("", "careful\n" if quiet else "progress\ncareful\n")
