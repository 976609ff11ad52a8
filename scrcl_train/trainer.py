"""Fit the teacher: full-batch Adam on L = L_EDA + λ₁ L_NCA + λ₂ L_CVC. There is no way in for labels."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from scrcl_infer.errors import TrainingError
from scrcl_train.checkpoint import RUN_FILES, append_metrics, open_run, write_checkpoint, write_metrics
from scrcl_train.config import TeacherConfig, TrainConfig
from scrcl_train.device import choose_device, reproducible, rng_state, set_rng_state
from scrcl_train.features import Features
from scrcl_train.graphs import add_loops, gcn_normalise
from scrcl_train.layers import CellGraph, SparseMatrix
from scrcl_train.model import Scrcl, TeacherInputs, TeacherOutput, paper_model, program_model, program_profiles
from scrcl_train.objective import (
    balanced_consistency,
    cross_view_consistency,
    embedding_distribution_alignment,
    neighbourhood_contrastive_alignment,
)

logger = logging.getLogger(__name__)

CHECKPOINT_EVERY = 10
"""Epochs between two checkpoints; the last epoch always writes one."""


@dataclass(frozen=True)
class EpochLog:
    """One line of `metrics.jsonl`."""

    epoch: int
    """Steps done so far, from 1."""
    loss: float
    """L, the weighted sum."""
    eda: float
    nca: float
    cvc: float
    """Of the paper's refinement; of the gene programs the balanced form."""
    seconds: float
    """Wall time of the step."""


@dataclass(frozen=True)
class Teacher:
    """A fitted teacher, frozen: the embeddings of its own training cells, in evaluation mode."""

    emb_1: NDArray[np.float32]
    """(n, h) unit rows."""
    emb_2: NDArray[np.float32]
    """(n, h) unit rows."""
    z_1: NDArray[np.float32]
    """(n, d) unit rows."""
    z_2: NDArray[np.float32]
    """(n, d) unit rows."""
    gene_embedding: NDArray[np.float32]
    """(g, d)"""
    history: tuple[EpochLog, ...]


def fit(
    features: Features,
    config: TrainConfig,
    *,
    seed: int = 0,
    device: str = "auto",
    run_dir: Path | None = None,
    resume: bool = False,
    on_epoch: Callable[[EpochLog], None] | None = None,
) -> Teacher:
    """Train for the configured number of epochs and embed the cells.

    Parameters
    ----------
    features
        From `prepare_features`.
    config
        Its `teacher` part is used here; all of it identifies the run.
    seed
        The same seed on the same device and number of threads gives the same bytes.
    device
        'auto', 'cpu', 'cuda' or 'mps'.
    run_dir
        Folder for settings, log and checkpoints; None writes nothing.
    resume
        Go on from the folder's last checkpoint, to the very weights of an uninterrupted run.
    on_epoch
        Called after each epoch.

    Raises
    ------
    TrainingError
        The loss is no longer finite, the device is not there, or the run folder holds another run.
    """
    place = choose_device(device)
    teacher = config.teacher
    with reproducible(seed, place):
        inputs = place_inputs(features, teacher, device=place)
        model = build_model(features, teacher).to(place)
        optimiser = torch.optim.Adam(model.parameters(), lr=teacher.learning_rate, weight_decay=teacher.weight_decay)
        history: list[EpochLog] = []
        if run_dir is not None:
            state = open_run(run_dir, _settings(features, config, seed, place), resume=resume)
            if state is not None:
                history = _restore(state, model, optimiser, place)
            if len(history) > teacher.epochs:
                msg = f"{run_dir} is at epoch {len(history)}, past the {teacher.epochs} asked for. Ask for more epochs."
                raise TrainingError(msg)
            write_metrics(run_dir / RUN_FILES.metrics, [dataclasses.asdict(log) for log in history])
        while len(history) < teacher.epochs:
            log = _step(model, inputs, optimiser, teacher, epoch=len(history) + 1)
            history.append(log)
            if run_dir is not None:
                append_metrics(run_dir / RUN_FILES.metrics, dataclasses.asdict(log))
                if log.epoch % CHECKPOINT_EVERY == 0 or log.epoch == teacher.epochs:
                    write_checkpoint(run_dir / RUN_FILES.checkpoint, _state(model, optimiser, history, place))
            if on_epoch is not None:
                on_epoch(log)
        return _freeze(embed(model, inputs), history)


def compute_losses(output: TeacherOutput, cells: CellGraph, config: TeacherConfig) -> dict[str, Tensor]:
    """Return the three losses and their weighted sum, by the names of `EpochLog`."""
    eda = embedding_distribution_alignment(output.emb_1, output.emb_2, temperature=config.temperature)
    nca = neighbourhood_contrastive_alignment(output.emb_1, output.emb_2, cells, temperature=config.temperature)
    consistency = cross_view_consistency if config.refinement == "paper" else balanced_consistency
    cvc = consistency(output.z_1, output.z_2, cells)
    return {"eda": eda, "nca": nca, "cvc": cvc, "loss": eda + config.lambda_nca * nca + config.lambda_cvc * cvc}


def place_inputs(
    features: Features,
    config: TeacherConfig,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> TeacherInputs:
    """Smooth the input for both views and put it and the graphs on a device."""
    dense = features.inputs.toarray() if sp.issparse(features.inputs) else features.inputs
    kind = np.float64 if dtype == torch.float64 else np.float32
    current: NDArray[Any] = np.ascontiguousarray(dense, dtype=kind)
    normalised = gcn_normalise(add_loops(features.cell_graph)).astype(kind)
    # The first convolution of view 2 has no weights before its averaging, so it is one more step, taken once.
    wanted = (config.smoothing[0], config.smoothing[1] + 1)
    placed: dict[int, Tensor] = {}
    for step in range(max(wanted) + 1):
        if step in wanted:
            placed[step] = torch.from_numpy(current).to(device)
        if step < max(wanted):
            current = normalised @ current
    return TeacherInputs(
        smoothed=placed[wanted[0]],
        propagated=placed[wanted[1]],
        cells=CellGraph.from_adjacency(features.cell_graph, device=device, dtype=dtype),
        genes=SparseMatrix(gcn_normalise(features.gene_graph), symmetric=False, device=device, dtype=dtype),
    )


def build_model(features: Features, config: TeacherConfig) -> Scrcl:
    """Return an untrained network for these features, from torch's current random state."""
    n_cells, n_inputs = features.inputs.shape
    if config.refinement == "paper":
        return paper_model(n_cells, n_inputs, hidden=config.hidden, dim=config.dim, dropout=config.dropout)
    components = features.components
    if components is None:
        msg = "The refinement 'programs' needs principal components. Prepare the features with the input 'pcs'."
        raise TrainingError(msg)
    supported = components.supported
    loadings = torch.from_numpy(np.ascontiguousarray(components.loadings[:, supported]))
    spread = torch.from_numpy(components.refined[:, supported].std(axis=0))
    genes = SparseMatrix(gcn_normalise(features.gene_graph), symmetric=False)
    profiles = program_profiles(loadings, spread, genes)
    return program_model(loadings, profiles, hidden=config.hidden, dim=config.dim, dropout=config.dropout)


def embed(model: Scrcl, inputs: TeacherInputs) -> TeacherOutput:
    """Embed all cells in evaluation mode, without gradients."""
    model.eval()
    with torch.no_grad():
        output: TeacherOutput = model(inputs)
    return output


def _step(
    model: Scrcl, inputs: TeacherInputs, optimiser: torch.optim.Optimizer, config: TeacherConfig, *, epoch: int
) -> EpochLog:
    start = time.perf_counter()
    model.train()
    optimiser.zero_grad(set_to_none=True)
    losses = compute_losses(model(inputs), inputs.cells, config)
    figures = {name: float(value.detach()) for name, value in losses.items()}
    if not all(math.isfinite(value) for value in figures.values()):
        found = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
        msg = (
            f"The loss is no longer finite at epoch {epoch} ({found}; learning rate {config.learning_rate:g}, "
            f"temperature {config.temperature:g}). Lower the learning rate or raise the temperature."
        )
        raise TrainingError(msg)
    torch.autograd.backward(losses["loss"])
    optimiser.step()
    log = EpochLog(epoch=epoch, seconds=time.perf_counter() - start, **figures)
    logger.debug("epoch %d: loss %.5g in %.2f s", epoch, log.loss, log.seconds)
    return log


def _state(
    model: Scrcl, optimiser: torch.optim.Optimizer, history: list[EpochLog], device: torch.device
) -> dict[str, Any]:
    return {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "random": rng_state(device),
        "history": [dataclasses.asdict(log) for log in history],
    }


def _restore(
    state: dict[str, Any], model: Scrcl, optimiser: torch.optim.Optimizer, device: torch.device
) -> list[EpochLog]:
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    set_rng_state(state["random"], device)
    return [EpochLog(**line) for line in state["history"]]


def _settings(features: Features, config: TrainConfig, seed: int, device: torch.device) -> dict[str, Any]:
    return {
        "config": config.to_dict(),
        "seed": seed,
        "data": _fingerprint(features),
        "device": device.type,
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }


def _fingerprint(features: Features) -> str:
    """Return a hash of all that the teacher sees."""
    digest = hashlib.sha256(repr(features.inputs.shape).encode())
    for part in (features.inputs, features.cell_graph, features.gene_graph):
        arrays = (part.data, part.indices, part.indptr) if sp.issparse(part) else (part,)
        for array in arrays:
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _freeze(output: TeacherOutput, history: list[EpochLog]) -> Teacher:
    arrays = {name: tensor.cpu().numpy().astype(np.float32) for name, tensor in output._asdict().items()}
    return Teacher(**arrays, history=tuple(history))
