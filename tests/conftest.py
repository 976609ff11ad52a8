"""What several test files share: where real data lies, and small simulated data."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from anndata import AnnData

# As the commands do: waiting OpenMP threads must not spin. Said here, before anything imports torch.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
DATA = Path(os.environ.get("SCRCL_DATA", "../shared/data"))


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    """A command that a test runs in this process sets up logging, with a stream that is closed after it."""
    loggers = [logging.getLogger(name) for name in ("scrcl_infer", "scrcl_train")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Return the path of a real data set by name, or skip the test where it is absent."""

    def find(name: str) -> Path:
        path = DATA / f"{name}.h5ad"
        if not path.is_file():
            pytest.skip(f"{path} is absent; set SCRCL_DATA to the folder that holds it")
        return path

    return find


@pytest.fixture(scope="session")
def simulated() -> AnnData:
    """400 cells of six known types in two batches, 300 genes."""
    from scrcl_train.simulator import SimulatorConfig, simulate

    return simulate(SimulatorConfig(n_cells=400, n_genes=300, median_depth=1500.0), seed=1)
