"""`scrcl-assign --dry-run`: all that a run refuses before it assigns is refused, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from scrcl_infer.atomic import HiddenFile
from scrcl_infer.room import check_room
from scrcl_infer.target import H5AD_ENDING, STDOUT, Labels, Target, find_ending
from scrcl_infer.totals import explain_gaps

if TYPE_CHECKING:
    from scrcl_infer.pipeline import Model
    from scrcl_infer.result import AssignOptions


def check_run(model: Model, data: Path, target: Target, *, options: AssignOptions, files: Iterable[Path]) -> str:
    """Check input and outputs as a run does, and return what was found, for people; ends without a line feed.

    Parameters
    ----------
    model
        That would assign.
    data
        The input file.
    target
        Where the answers would go; `check_target` has accepted it.
    options
        Of the run.
    files
        All that the run would write, the target's among them; standard output is none.

    Raises
    ------
    InputError, MatrixError, GeneOverlapError
        See `Model.check`.
    OutputError
        The copy cannot or must not take the answers (see `check_room`), or a folder cannot be written.
    """
    matrix, genes = model.check(data, options=options)
    if target.path != STDOUT and find_ending(target.path) == H5AD_ENDING:
        labels = Labels.from_manifest(model.manifest, target, strangeness=model.measures_strangeness)
        check_room(data, (*target.columns, *(column.key for column in labels.further)), target)
    files = list(files)
    for path in files:
        # Only making a file tells for certain that one can be made; it is gone again at once.
        with HiddenFile(path, force=target.force):
            pass
    unwritten = f", and nothing was written to {', '.join(map(str, files))}" if files else ""
    lines = [
        f"model    {model.manifest.name}: {len(model.manifest.cell_types)} types",
        f"matrix   {matrix.where} as {matrix.state}. {matrix.reason}",
        f"genes    {genes.n_found:,} of {genes.n_model:,} found, {genes.weighted_overlap:.1%} of the model's evidence "
        f"({genes.matched_by})",
        *(f"warning  {text}" for text in explain_gaps(model.manifest, genes)),
        f"Nothing was assigned{unwritten}: this was a dry run.",
    ]
    return "\n".join(lines)
