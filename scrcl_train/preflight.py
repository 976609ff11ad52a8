"""Refuse before the work what would be refused after it."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from scrcl_infer.atomic import check_path
from scrcl_infer.bundle import check_folder
from scrcl_infer.errors import InputError, OutputError, TrainingError
from scrcl_infer.gene_names import PLACEHOLDER
from scrcl_infer.h5ad import H5ad
from scrcl_train.checkpoint import RUN_FILES
from scrcl_train.data import ID_COLUMNS, SYMBOL_COLUMNS
from scrcl_train.device import choose_device
from scrcl_train.names import check_names
from scrcl_train.options import TrainOptions

logger = logging.getLogger(__name__)
MOSTLY = 0.9
"""Share of the genes' names from which on they are taken to be numbers."""


def check_run(path: Path, folder: Path, options: TrainOptions) -> Path:
    """Check inputs, outputs and device, and return the folder for log and checkpoints.

    With `force` and without `resume`, an earlier run's files are removed from that folder.

    Parameters
    ----------
    path
        The training data.
    folder
        The bundle to write.
    options
        The rest.

    Raises
    ------
    InputError
        An input file is not there, the training data is no `.h5ad` or has no cells, its genes go by numbers though
        their names are known, the table or the notes are no text, or names are asked for in a way that cannot be
        followed.
    OutputError
        The bundle or the `.h5ad` copy must not, or the bundle cannot, be written there.
    TrainingError
        The run folder holds another run, the device is not there, or there are fewer cells than populations asked for.
    """
    for needed in (path, options.gene_ids, options.card_notes, options.markers, options.ontology_ids):
        if needed is not None and not needed.is_file():
            msg = f"There is no file {needed.absolute()}. Check the path."
            raise InputError(msg)
    for text in (options.gene_ids, options.card_notes):
        if text is not None:
            _check_text(text)
    with H5ad(path) as source:
        if source.n_cells == 0:
            msg = f"{path} holds no cells. Give a file with some."
            raise InputError(msg)
        check_number(options.n_populations, source.n_cells)
        if options.gene_column is None:
            _check_genes(source)
    check_names(options)
    check_folder(folder, force=options.force)
    if options.write_h5ad is not None:
        _check_copy(options.write_h5ad, path, force=options.force)
    choose_device(options.device)
    run_dir = name_run_dir(folder, options)
    for written in (folder, run_dir):
        _check_writable(written)
    held = (run_dir / RUN_FILES.settings).exists()
    if options.resume and not held:
        logger.warning("There is nothing to resume in %s: starting from the first epoch.", run_dir)
    if held and not options.resume:
        if not options.force:
            msg = f"{run_dir} holds a run. Go on with it (--resume), replace it (--force), or name another (--run-dir)."
            raise TrainingError(msg)
        for name in RUN_FILES:
            (run_dir / name).unlink(missing_ok=True)
    return run_dir


def name_run_dir(folder: Path, options: TrainOptions) -> Path:
    """Return the folder for log and checkpoints: the one asked for, else `BUNDLE.run` beside the bundle `folder`."""
    return options.run_dir or folder.with_name(folder.name + ".run")


def _check_copy(copy: Path, path: Path, *, force: bool) -> None:
    """Refuse a name of the annotated copy that would hide what it is, or must not be written."""
    if copy.suffix != ".h5ad":
        msg = f"{copy}: --write-h5ad writes an .h5ad file. Give it a name that ends in .h5ad."
        raise OutputError(msg)
    check_path(copy, force=force, inputs=(path,))


def check_number(n_populations: int | None, n_cells: int) -> None:
    """Refuse more populations than there are cells.

    Called with the rows of the file before they are read, and with the cells that hold counts once that is known.

    Raises
    ------
    TrainingError
        More were asked for.
    """
    if n_populations is not None and n_populations > n_cells:
        msg = f"{n_populations} populations were asked for; with {n_cells} cells there must be 1 to {n_cells}."
        raise TrainingError(msg)


def _check_genes(source: H5ad) -> None:
    """Refuse genes that go by bare numbers where a column has their names; warn where none has.

    Such a model would meet other files by those numbers, whatever genes they stand for there.
    """
    names = [str(name) for name in source.var_names()]
    numbers = [name for name in names if PLACEHOLDER.match(name)]
    if not names or len(numbers) < MOSTLY * len(names):
        return
    listed = ", ".join(repr(name) for name in numbers[:3])
    known = next((key for key in (*SYMBOL_COLUMNS, *ID_COLUMNS) if key in source.var_keys()), None)
    if known is not None and numbers[0].isdigit():
        msg = (
            f"var names the genes by numbers ({listed}, ...) and has their names in '{known}'. The model would know "
            f"the numbers only. Add --gene-column {known}."
        )
        raise InputError(msg)
    if known is None:
        logger.warning(
            "The genes are named by numbers (%s, ...): the model is of use only for files that number their genes "
            "alike.",
            listed,
        )


def _check_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made, or written to, without leaving anything there."""
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())
    try:
        with tempfile.TemporaryDirectory(dir=there, prefix=".scrcl-"):
            pass
    except OSError as error:
        msg = f"Cannot write {folder}: {error.strerror or error} (in {there}). Choose another place."
        raise OutputError(msg) from error


def _check_text(path: Path) -> None:
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        msg = f"{path} is no UTF-8 text ({error.reason} at byte {error.start}). Unpack it, or save it as UTF-8."
        raise InputError(msg) from error
