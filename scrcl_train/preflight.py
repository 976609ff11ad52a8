"""Refuse before the work what would be refused after it."""

from __future__ import annotations

import logging
from pathlib import Path

from scrcl_infer.atomic import check_path
from scrcl_infer.bundle import check_folder
from scrcl_infer.errors import InputError, TrainingError
from scrcl_train.checkpoint import RUN_FILES
from scrcl_train.device import choose_device
from scrcl_train.names import check_names
from scrcl_train.options import TrainOptions

logger = logging.getLogger(__name__)


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
        An input file is not there, or names are asked for in a way that cannot be followed.
    OutputError
        The bundle or the `.h5ad` copy must not be written there.
    TrainingError
        The run folder holds another run, or the device is not there.
    """
    for needed in (path, options.gene_ids, options.card_notes, options.markers, options.ontology_ids):
        if needed is not None and not needed.is_file():
            msg = f"There is no file {needed.absolute()}. Check the path."
            raise InputError(msg)
    check_names(options)
    check_folder(folder, force=options.force)
    if options.write_h5ad is not None:
        check_path(options.write_h5ad, force=options.force, inputs=(path,))
    choose_device(options.device)
    run_dir = options.run_dir or folder.with_name(folder.name + ".run")
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
