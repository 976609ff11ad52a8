"""What the three commands share: exit codes, the version line, where messages go.

Results go to stdout and everything else to stderr, so that a command can stand in a pipe.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from scrcl_infer.errors import ScrclError

if TYPE_CHECKING:
    import typer

DEBUG_VARIABLE = "SCRCL_DEBUG"
"""Set to 1 in the environment, it makes an error show its traceback."""


def run(app: typer.Typer, *, prog: str) -> int:
    """Run a Typer app on the process's arguments and return its exit code.

    Errors that scRCL raises on purpose, and those of the file system, become one clean message on stderr and the exit
    code of `scrcl_infer.errors`; wrong usage is 2. Anything else is a bug and keeps its traceback.

    Parameters
    ----------
    prog
        Name of the command, as it stands in messages.
    """
    try:
        app(prog_name=prog)
    except (ScrclError, OSError) as error:
        if os.environ.get(DEBUG_VARIABLE) == "1":
            raise
        lines = [str(error), *getattr(error, "__notes__", [])]
        sys.stderr.write(f"{prog}: error: " + "\n  ".join(lines) + "\n")
        return error.exit_code if isinstance(error, ScrclError) else ScrclError.exit_code
    except SystemExit as stop:  # how Typer ends, also after a success
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def package_version() -> str:
    """Return the version of the installed distribution, '0+unknown' in a source tree that is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("scrcl")
    except PackageNotFoundError:
        return "0+unknown"


def version_callback(prog: str) -> Callable[[bool], None]:
    """Return an eager Typer callback for `--version` that prints one line, 'PROG X.Y.Z', and exits."""

    def show(value: bool) -> None:  # noqa: FBT001 - the signature that Typer calls
        if value:
            import typer

            typer.echo(f"{prog} {package_version()}")
            raise typer.Exit

    return show


def configure_logging(*, quiet: bool = False) -> None:
    """Send the packages' log messages to stderr; only warnings and errors when `quiet`.

    For commands only: a library leaves logging to the program that uses it.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    for name in ("scrcl_infer", "scrcl_train"):
        package_logger = logging.getLogger(name)
        package_logger.handlers = [handler]
        package_logger.setLevel(logging.WARNING if quiet else logging.INFO)
        package_logger.propagate = False
