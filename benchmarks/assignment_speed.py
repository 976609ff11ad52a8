"""Time and peak memory of assigning files of growing size, from file to table, beside CellTypist; and of the encoder.

Run as ``python -m benchmarks.assignment_speed``; prints a Markdown table. The files are PBMC 3k (raw counts of
32,738 genes), repeated. Ours answers by the shipped model, CellTypist by a model trained with its defaults on the same
cells, in an environment of its own. Each row is a process of its own, start included, on as many threads
as it takes by default. Rows of one size follow each other, because the machine may be shared; CPU seconds stand beside.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from benchmarks.celltypist_env import CELLTYPIST
from benchmarks.datasets import DataSet, load_set
from benchmarks.environments import WORKERS

REPEATS = (4, 12, 48)
"""Copies of the cells in each file."""
MOST_OF_PEER = 12
"""CellTypist takes 0.3 MB a cell with so many genes: more copies do not fit a machine of 24 GB."""
CELLS = DataSet("pbmc3k")
MODEL = Path(__file__).parents[1] / "models" / "human-pbmc"
ENCODED_CELLS = 12_800
ENCODER_RUNS = 5


class Cost(NamedTuple):
    """What a process took."""

    seconds: float
    processor: float
    peak_mb: float


def main() -> None:
    """Write the files, measure every row and print the table."""
    print("Assigning, from file to table; the encoder alone holds its cells in memory.\n")
    print("| what | cells | seconds | CPU seconds | thousand cells / s | peak memory, MB |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        peer = _learn_celltypist(folder) if CELLTYPIST.make() else None
        for copies in REPEATS:
            path = folder / "query.h5ad"
            n_cells = _write_apart(path, copies)
            command = ("scrcl_infer.cli", str(path), "-m", str(MODEL), "-o", str(folder / "types.csv"), "--force")
            _print_row("scrcl-assign", n_cells, measure((sys.executable, "-m", *command)))
            if peer is not None and copies <= MOST_OF_PEER:
                types = str(folder / "peer.csv")
                _print_row(
                    "CellTypist", n_cells, measure((*peer, "answer", str(path), str(folder / "peer.pkl"), types))
                )
    _print_encoder()


def measure(command: tuple[str, ...]) -> Cost:
    """Run a command and return what it took.

    Raises
    ------
    RuntimeError
        It failed.
    """
    with tempfile.TemporaryFile("w+") as remarks:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=remarks, stderr=remarks)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            remarks.seek(0)
            msg = f"{command[0]} ended with {process.returncode}: {remarks.read()[-500:]}"
            raise RuntimeError(msg)
    unit = 1024 if sys.platform != "darwin" else 1024**2
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit)


def _learn_celltypist(folder: Path) -> tuple[str, ...]:
    """Train CellTypist; return the command that runs it."""
    worker = str(CELLTYPIST.python), "-I", str(WORKERS / "celltypist_file.py")
    _write_apart(folder / "reference.h5ad", 1)
    measure((*worker, "learn", str(folder / "reference.h5ad"), str(folder / "peer.pkl")))
    return worker


def _write_apart(path: Path, copies: int) -> int:
    """Write in a process of its own: a measured one starts with the peak memory of the process that starts it."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_write, path, copies).result()


def _write(path: Path, copies: int) -> int:
    """Write the cells' counts, with their types, as many times below each other; return the number of cells."""
    import anndata
    import pandas as pd

    found = load_set(CELLS)
    counts = sp.csr_matrix(sp.vstack([found.cells.counts] * copies))
    obs = pd.DataFrame({"cell_type": np.tile(found.labels.astype(str), copies)})
    obs.index = obs.index.astype(str)
    adata = anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=found.cells.genes.astype(str)))
    adata.var_names_make_unique()
    adata.write_h5ad(path)
    return adata.n_obs


def _print_row(what: str, n_cells: int, cost: Cost) -> None:
    print(
        f"| {what} | {n_cells:,} | {cost.seconds:.1f} | {cost.processor:.1f} | {n_cells / cost.seconds / 1e3:.1f} "
        f"| {cost.peak_mb:,.0f} |",
        flush=True,
    )


def _print_encoder() -> None:
    """Print the shipped encoder's speed on cells in memory, the best of some runs."""
    from scrcl_infer.encoder import Encoder

    encoder = Encoder((MODEL / "encoder.onnx").read_bytes())
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.1, (ENCODED_CELLS, encoder.n_genes)).astype(np.float32)
    library = counts.sum(axis=1, keepdims=True) + 1
    costs = []
    for _ in range(ENCODER_RUNS):
        start, processor = time.perf_counter(), time.process_time()
        encoder.run(counts, library)
        costs.append((time.perf_counter() - start, time.process_time() - processor))
    seconds, processor = min(costs)
    what = f"encoder alone, {encoder.n_genes:,} genes, {encoder.threads} threads"
    print(f"| {what} | {ENCODED_CELLS:,} | {seconds:.3f} | {processor:.3f} | {ENCODED_CELLS / seconds / 1e3:.0f} | |")


if __name__ == "__main__":
    main()
