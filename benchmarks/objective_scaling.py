"""Time and peak memory of the objective as the number of cells grows, and of one epoch of the paper's teacher.

Run as ``python -m benchmarks.objective_scaling``; prints a Markdown table. Each row is measured in a process of its
own, so that its peak memory is its own. The dense form, with n x n arrays as in the authors' code, is measured where
they fit. Processor seconds stand beside wall time, because the machine may be shared.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from scrcl_train.layers import CellGraph

HIDDEN = 1500
DIM = 10
TEMPERATURE = 0.1
NEIGHBORS = 11
"""Random others joined to each cell, which makes some 22 edges a cell, as a symmetrised 15-NN graph has."""
LINEAR_SIZES = (5_000, 20_000, 80_000)
DENSE_SIZES = (5_000,)
REPEATS = 3
ENOUGH_SECONDS = 30.0
"""No further repeat once a row has taken this long."""


def main() -> None:
    """Measure every row and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", nargs=2, metavar=("FORM", "CELLS"), help="measure one row here and print JSON")
    row = parser.parse_args().row
    if row is not None:
        print(json.dumps(_measure(row[0], int(row[1]))))
        return
    rows = [("dense", n) for n in DENSE_SIZES] + [("linear", n) for n in LINEAR_SIZES]
    print(f"Objective, forward and backward, h = {HIDDEN}, float32; epoch of the paper preset on pbmc3k.\n")
    print("| what | cells | seconds | CPU seconds | CPU us per cell | peak memory, MB | of that before, MB |")
    print("|---|---|---|---|---|---|---|")
    for form, n_cells in rows:
        _print_row(f"objective, {form}", _child(form, n_cells))
    if _pbmc3k().is_file():
        _print_row("one epoch, paper preset", _child("epoch", 0))
    else:
        print(f"\n{_pbmc3k()} is absent: set SCRCL_DATA to measure the epoch.", file=sys.stderr)


def _child(form: str, n_cells: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.objective_scaling", "--row", form, str(n_cells)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _print_row(name: str, figures: dict[str, float]) -> None:
    cells, processor = figures["cells"], figures["processor"]
    print(
        f"| {name} | {cells:,.0f} | {figures['seconds']:.2f} | {processor:.2f} | {processor / cells * 1e6:.0f} "
        f"| {figures['peak_mb']:,.0f} | {figures['before_mb']:,.0f} |",
        flush=True,
    )


def _measure(form: str, n_cells: int) -> dict[str, float]:
    if form == "epoch":
        return _measure_epoch()
    import numpy as np
    import scipy.sparse as sp
    import torch
    from torch.nn import functional

    from scrcl_train.layers import CellGraph

    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    ends = (np.repeat(np.arange(n_cells), NEIGHBORS), rng.integers(0, n_cells, n_cells * NEIGHBORS))
    directed = sp.csr_matrix((np.ones(ends[0].size, np.float32), ends), shape=(n_cells, n_cells))
    adjacency = directed.maximum(directed.T)
    adjacency.setdiag(0)
    adjacency.eliminate_zeros()
    adjacency.data[:] = 1
    graph = CellGraph.from_adjacency(adjacency)
    views = [torch.rand(n_cells, width) for width in (HIDDEN, HIDDEN, DIM, DIM)]
    views = [functional.normalize(view, out=view).requires_grad_() for view in views]
    before = _peak_mb()
    function = _linear if form == "linear" else _dense
    times: list[tuple[float, float]] = []
    while len(times) < REPEATS and sum(seconds for seconds, _ in times) < ENOUGH_SECONDS:
        start, start_processor = time.perf_counter(), time.process_time()
        torch.autograd.backward(function(views, graph))
        times.append((time.perf_counter() - start, time.process_time() - start_processor))
        for view in views:
            view.grad = None
    seconds, processor = (min(column) for column in zip(*times, strict=True))
    return {
        "cells": n_cells,
        "seconds": seconds,
        "processor": processor,
        "peak_mb": _peak_mb(),
        "before_mb": before,
    }


def _linear(views: list[Tensor], graph: CellGraph) -> Tensor:
    from scrcl_train.objective import (
        cross_view_consistency,
        embedding_distribution_alignment,
        neighbourhood_contrastive_alignment,
    )

    emb_1, emb_2, z_1, z_2 = views
    eda = embedding_distribution_alignment(emb_1, emb_2, temperature=TEMPERATURE)
    nca = neighbourhood_contrastive_alignment(emb_1, emb_2, graph, temperature=TEMPERATURE)
    return eda + nca + cross_view_consistency(z_1, z_2, graph)


def _dense(views: list[Tensor], graph: CellGraph) -> Tensor:
    """Return the same three losses by their definitions, with n x n arrays."""
    import torch

    emb_1, emb_2, z_1, z_2 = views
    n_cells = len(emb_1)
    looped = graph.looped @ torch.eye(n_cells)
    logits_1, logits_2 = emb_1 / TEMPERATURE, emb_2 / TEMPERATURE
    eda = _divergence(logits_1.flatten(), logits_2.flatten()) + _divergence(logits_1, logits_2) / (2 * n_cells)
    log_1, log_2 = logits_1.log_softmax(1), logits_2.log_softmax(1)
    p_1, p_2 = log_1.exp(), log_2.exp()
    one_two = (p_1 * log_1).sum(1)[:, None] - p_1 @ log_2.T
    two_one = (p_2 * log_2).sum(1)[None] - log_1 @ p_2.T
    pairs = one_two + two_one
    near = (looped * pairs).sum(1) / looped.sum(1)
    nca = (near / ((pairs.sum(1) - pairs.diagonal()) / (n_cells - 1))).mean()
    return eda + nca + ((z_1 @ z_2.T - looped) ** 2).sum() / n_cells**2


def _divergence(logits_1: Tensor, logits_2: Tensor) -> Tensor:
    log_1, log_2 = logits_1.log_softmax(-1), logits_2.log_softmax(-1)
    return ((log_1.exp() - log_2.exp()) * (log_1 - log_2)).sum()


def _measure_epoch() -> dict[str, float]:
    import anndata
    import scipy.sparse as sp

    from scrcl_train.features import prepare_features
    from scrcl_train.presets import get_preset
    from scrcl_train.trainer import fit

    config = get_preset("paper", epochs=REPEATS)
    counts = sp.csr_matrix(anndata.read_h5ad(_pbmc3k()).X)
    features = prepare_features(counts, config)
    before = _peak_mb()
    marks = [time.process_time()]
    teacher = fit(features, config, device="cpu", on_epoch=lambda _: marks.append(time.process_time()))
    return {
        "cells": counts.shape[0],
        "seconds": min(log.seconds for log in teacher.history),
        "processor": min(after - earlier for earlier, after in itertools.pairwise(marks)),
        "peak_mb": _peak_mb(),
        "before_mb": before,
    }


def _pbmc3k() -> Path:
    return Path(os.environ.get("SCRCL_DATA", "../shared/data")) / "pbmc3k.h5ad"


def _peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


if __name__ == "__main__":
    main()
