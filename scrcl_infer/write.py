"""Write answers: a copy of the input with new columns, or a table; complete under its name, or not there at all.

A sink takes blocks of answers as they come and keeps none of them. It writes to a hidden file beside the target, which
takes the target's name only in `finish`: an error, a full disk or Ctrl-C leaves no half-written target, and the input
is never touched.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

from scrcl_infer.atomic import HiddenFile
from scrcl_infer.result import AssignedBlock
from scrcl_infer.target import H5AD_ENDING, STDOUT, Labels, Target, check_target, find_ending

if TYPE_CHECKING:
    from scrcl_infer.contract import Manifest
    from scrcl_infer.h5ad import Source


class Sink(Protocol):
    """Takes blocks of answers, in order; the target is there only after `finish`."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about the target."""

    def write(self, block: AssignedBlock) -> None:
        """Append the answers of the next cells."""

    def finish(self, about: Mapping[str, object]) -> None:
        """Complete the target; `about` says how the answers came about, as plain strings, numbers and dicts."""

    def close(self) -> None:
        """Let go of open files; what was not finished is lost."""


@contextlib.contextmanager
def open_sink(target: Target, source: Source, manifest: Manifest, *, strangeness: bool = False) -> Iterator[Sink]:
    """Open the sink that the target's ending asks for; leaving the context without `finish` leaves no target.

    Parameters
    ----------
    target
        Where to write; `-` is a TSV on standard output.
    source
        The query; an `.h5ad` target is a copy of its file, a table takes its cell names.
    manifest
        Names of populations and types, and the width of the embedding.
    strangeness
        Write the cells' strangeness too; for bundles with a `Rejection`.

    Raises
    ------
    OutputError
        See `check_target`; the input's `obs` is of a layout that cannot be extended; or the bundle has no ontology ids.
    """
    check_target(target, source.path)
    labels = Labels.from_manifest(manifest, target, strangeness=strangeness)
    if target.path == STDOUT:
        from scrcl_infer.write_table import TextSink

        yield TextSink(target, source, labels, out=sys.stdout)
        return
    with HiddenFile(target.path, force=target.force) as hidden:
        sink = _make_sink(target, source, labels, hidden=hidden, dim=manifest.encoder.dim)
        try:
            yield sink
        finally:
            sink.close()


def _make_sink(target: Target, source: Source, labels: Labels, *, hidden: HiddenFile, dim: int) -> Sink:
    ending = find_ending(target.path)
    if ending == H5AD_ENDING:
        from scrcl_infer.write_h5ad import H5adSink

        return H5adSink(target, source, labels, hidden=hidden, dim=dim)
    from scrcl_infer.write_table import ParquetSink, TextSink

    if ending == ".parquet":
        return ParquetSink(target, source, labels, hidden=hidden)
    return TextSink(target, source, labels, out=hidden)
