"""Files that are complete under their name, or not there at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from scrcl_infer.errors import OutputError


def check_path(path: Path, *, force: bool, inputs: tuple[Path, ...] = ()) -> None:
    """Refuse a path that cannot or must not be written.

    Raises
    ------
    OutputError
        Its folder is missing, it is a folder, it is one of `inputs`, or it exists and `force` is not set.
    """
    if not path.parent.is_dir():
        msg = f"Cannot write '{path}': the folder '{path.parent}' does not exist. Create it first."
        raise OutputError(msg)
    if not path.exists():
        return
    if path.is_dir():
        msg = f"Cannot write '{path}': it is a folder. Name a file."
        raise OutputError(msg)
    if any(given.exists() and path.samefile(given) for given in inputs):
        msg = f"Cannot write '{path}': it is an input, and inputs are never changed. Name another file."
        raise OutputError(msg)
    if not force:
        msg = f"'{path}' exists. Name another file, or replace it with --force."
        raise OutputError(msg)


class HiddenFile:
    """A file beside its target that takes the target's name when it is complete, and is removed otherwise.

    A context manager; the file is there from entering on.

    Parameters
    ----------
    path
        The target.
    force
        Replace a target that exists by then.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """

    def __init__(self, path: Path, *, force: bool) -> None:
        self.target = path
        self.force = force
        # The target's own folder: renaming is atomic only within one file system.
        self.path = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")

    def __enter__(self) -> Self:
        try:
            with output_errors(self.target):
                self.path.open("xb").close()
        except BaseException:  # a signal may come when the file is there already
            with contextlib.suppress(OSError):
                self.path.unlink()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.path.unlink(missing_ok=True)

    def commit(self) -> None:
        """Flush to disk and take the target's name."""
        check_path(self.target, force=self.force)
        with output_errors(self.target):
            _sync(self.path)
            self.path.replace(self.target)
            with contextlib.suppress(OSError):  # some file systems cannot sync a folder
                _sync(self.target.parent)


@contextlib.contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Turn errors of the operating system while writing `path` into `OutputError`; a broken pipe passes."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        place = "standard output" if path == Path("-") else f"'{path}'"
        msg = f"Cannot write {place}: {_reason(error)}. Free space or choose another place."
        raise OutputError(msg) from error


def write_atomically(path: Path, data: bytes, *, force: bool) -> None:
    """Write a small file in one go.

    Raises
    ------
    OutputError
        See `check_path`; or the operating system refuses.
    """
    check_path(path, force=force)
    with HiddenFile(path, force=force) as hidden:
        with output_errors(path):
            hidden.path.write_bytes(data)
        hidden.commit()


def _reason(error: OSError) -> str:
    """Return what the system said; HDF5 and Arrow wrap it in words of their own."""
    wrapped = re.search(r"error message = '([^']+)'|Detail: \[errno \d+\] (.+)", str(error))
    if wrapped:
        return wrapped.group(1) or wrapped.group(2)
    return error.strerror or str(error)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
