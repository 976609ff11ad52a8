"""Teach the student: reproduce the teacher's embedding, the populations and the types from one cell's counts.

The student never sees a cell as it was measured, but thinned and with genes missing: see `scrcl_train.augment`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from scrcl_infer.errors import TrainingError
from scrcl_train.augment import AugmentConfig, CellSampler
from scrcl_train.rarity import fit_rarity
from scrcl_train.student import Student, StudentConfig, StudentOutput
from scrcl_train.student_input import fit_input_directions, fit_input_mean

logger = logging.getLogger(__name__)

MIN_COMPONENTS, CELLS_PER_COMPONENT = 16, 16
"""Components of few cells show their noise: those cells themselves would lie far out on them, and new ones not."""


@dataclass(frozen=True)
class Targets:
    """What the student has to reproduce (n cells)."""

    embedding: NDArray[np.float32]
    """(n, Dt) embedding of the teacher, of any width."""
    populations: NDArray[np.int64]
    """(n,) in [0, n_populations)."""
    n_populations: int
    map: NDArray[np.float32]
    """(n, 2)"""
    types: NDArray[np.int64] | None = None
    """(n,) in [0, n_types), -1 for a cell without label; None without labels."""
    n_types: int = 0

    @property
    def classes(self) -> NDArray[np.int64]:
        """What is answered and calibrated, (n,): types, -1 without label; populations where there are no types."""
        return self.populations if self.types is None else self.types

    def with_classes(self, classes: NDArray[np.int64], n_classes: int) -> Targets:
        """Return targets with other classes, types or populations."""
        if self.types is None:
            return replace(self, populations=classes, n_populations=n_classes)
        return replace(self, types=classes, n_types=n_classes)

    def take(self, rows: NDArray[np.int64]) -> Targets:
        """Return the targets of some of the cells; populations and types keep their numbers."""
        types = None if self.types is None else self.types[rows]
        return replace(
            self, embedding=self.embedding[rows], populations=self.populations[rows], map=self.map[rows], types=types
        )


@dataclass(frozen=True)
class DistilConfig:
    """The recipe."""

    student: StudentConfig = field(default_factory=StudentConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    epochs: int = 60
    min_steps: int = 300
    """Small data get more epochs, up to this many steps."""
    batch_size: int = 256
    learning_rate: float = 3e-3
    """Peak of the one-cycle schedule."""
    weight_decay: float = 1e-2
    max_gradient: float = 5.0
    """Norm that the gradient is cut down to."""
    class_weight_exponent: float = 0.25
    """A type's weight in the loss falls with its frequency to this power; 1 would drown common types in rare noise."""


@dataclass(frozen=True)
class DistilEpoch:
    """What is reported after each epoch."""

    epoch: int
    """1, 2, ... `n_epochs`."""
    n_epochs: int
    losses: dict[str, float]
    """Mean over the epoch's cells: embedding, population, type (with labels), map."""
    seconds: float


def distil(
    counts: sp.csr_matrix,
    library_size: NDArray[np.float32],
    targets: Targets,
    *,
    config: DistilConfig | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    on_epoch: Callable[[DistilEpoch], None] | None = None,
) -> Student:
    """Train a student; the same seed on the same CPU and number of threads gives the same weights.

    Parameters
    ----------
    counts
        (n, G) raw counts of the input genes.
    library_size
        (n,) or (n, 1) total counts over all genes.
    targets
        What to reproduce.
    config
        The recipe; the default is described in `docs/method.md`.
    on_epoch
        Called after each epoch.

    Returns
    -------
    Student
        On the CPU, in evaluation mode.

    Raises
    ------
    TrainingError
        The arrays are of different lengths, or the loss is no longer finite.
    """
    config = config or DistilConfig()
    device = torch.device(device)
    _check_lengths(counts, library_size, targets)
    embedding = reduce_embedding(targets.embedding, config.student.dim)
    config = replace(config, student=replace(config.student, dim=embedding.shape[1]))
    # The initial weights and dropout draw from torch's global state; the caller's is put back.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        student = _new_student(counts, library_size, targets, config.student).to(device)
        sampler = CellSampler(counts, library_size, device)
        truth = _Truth.build(replace(targets, embedding=embedding), student, config.class_weight_exponent)
        _run(student, sampler, truth, config, seed, on_epoch)
    student.cpu().round_weights()
    return student.eval()


def reduce_embedding(embedding: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    """Return the leading principal components of an embedding, (n, min(dim, Dt)), centred, of definite sign."""
    centred = embedding.astype(np.float64) - embedding.mean(axis=0, dtype=np.float64)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    leading = vectors[:, ::-1][:, :dim]
    signs = np.sign(leading[np.abs(leading).argmax(axis=0), np.arange(leading.shape[1])])
    reduced: NDArray[np.float32] = (centred @ (leading * signs)).astype(np.float32)
    return reduced


@dataclass(frozen=True)
class _Truth:
    """Targets and class weights as tensors."""

    embedding: Tensor
    populations: Tensor
    map: Tensor
    """In units of the map's own spread, so that its loss weighs as much as the others whatever the picture's size."""
    map_centre: Tensor
    map_scale: Tensor
    types: Tensor | None
    type_weights: Tensor | None

    @staticmethod
    def build(targets: Targets, student: Student, weight_exponent: float) -> _Truth:
        device = student.mean.device

        def put(values: NDArray[np.generic], dtype: torch.dtype) -> Tensor:
            return torch.as_tensor(np.ascontiguousarray(values)).to(device=device, dtype=dtype)

        embedding = functional.normalize(put(targets.embedding, torch.float32), dim=1)
        place = (put(targets.map, torch.float32) - student.map_centre) / student.map_scale
        types = weights = None
        if targets.types is not None:
            types = put(targets.types, torch.int64)
            sizes = np.bincount(targets.types[targets.types >= 0], minlength=targets.n_types)
            raw = np.maximum(sizes, 1.0) ** -weight_exponent
            weights = put(raw * sizes.sum() / max((raw * sizes).sum(), 1e-12), torch.float32)
        populations = put(targets.populations, torch.int64)
        return _Truth(embedding, populations, place, student.map_centre, student.map_scale, types, weights)


def _new_student(
    counts: sp.csr_matrix, library_size: NDArray[np.float32], targets: Targets, config: StudentConfig
) -> Student:
    mean = fit_input_mean(counts, library_size, target_sum=config.target_sum)
    n_types = targets.n_types if targets.types is not None else 0
    supported = max(MIN_COMPONENTS, counts.shape[0] // CELLS_PER_COMPONENT)
    n_components = min(config.n_components, mean.size - 1, supported)
    directions = fit_input_directions(counts, library_size, n_components, target_sum=config.target_sum)
    rarity = fit_rarity(counts, library_size, targets.classes)
    student = Student(
        mean, config, n_populations=targets.n_populations, n_types=n_types, directions=directions, rarity=rarity
    )
    student.map_centre.copy_(torch.from_numpy(targets.map.mean(axis=0).astype(np.float32)))
    student.map_scale.copy_(torch.from_numpy(np.maximum(targets.map.std(axis=0), 1e-6).astype(np.float32)))
    return student


def _run(  # noqa: PLR0917 - the loop's own parts
    student: Student,
    sampler: CellSampler,
    truth: _Truth,
    config: DistilConfig,
    seed: int,
    on_epoch: Callable[[DistilEpoch], None] | None,
) -> None:
    steps = math.ceil(sampler.n_cells / config.batch_size)
    n_epochs = max(config.epochs, math.ceil(config.min_steps / steps))
    decayed = [p for p in student.parameters() if p.ndim > 1]
    free = [p for p in student.parameters() if p.ndim <= 1]  # a bias has no reason to be small
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.learning_rate, total_steps=n_epochs * steps)
    generator = torch.Generator(sampler.home).manual_seed(seed)
    student.train()
    for epoch in range(1, n_epochs + 1):
        started = time.perf_counter()
        sums: dict[str, Tensor] = {}
        order = torch.randperm(sampler.n_cells, device=sampler.home, generator=generator)
        for rows in torch.split(order, config.batch_size):
            block, library = sampler.sample(rows, config.augment, generator)
            losses = _losses(student(block, library), truth, rows.to(sampler.device))
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(torch.stack(list(losses.values())).sum())
            torch.nn.utils.clip_grad_norm_(student.parameters(), config.max_gradient)
            optimiser.step()
            schedule.step()
            for name, loss in losses.items():
                sums[name] = sums.get(name, torch.zeros((), device=sampler.device)) + loss.detach() * rows.numel()
        means = {name: float(total) / sampler.n_cells for name, total in sums.items()}
        _check_finite(means, epoch)
        if on_epoch is not None:
            on_epoch(DistilEpoch(epoch, n_epochs, means, time.perf_counter() - started))
    logger.debug("student: %d epochs of %d steps", n_epochs, steps)


def _losses(output: StudentOutput, truth: _Truth, rows: Tensor) -> dict[str, Tensor]:
    losses = {
        "embedding": 1 - (output.embedding * truth.embedding[rows]).sum(dim=1).mean(),
        "population": functional.nll_loss(output.log_posterior, truth.populations[rows]),
        "map": functional.smooth_l1_loss((output.map - truth.map_centre) / truth.map_scale, truth.map[rows]),
    }
    if truth.types is not None and truth.type_weights is not None and output.log_type_posterior is not None:
        types = truth.types[rows]
        labelled = types >= 0
        weights = torch.where(labelled, truth.type_weights[types.clamp(min=0)], 0.0)
        each = -output.log_type_posterior.gather(1, types.clamp(min=0)[:, None])[:, 0]
        losses["type"] = (weights * each).sum() / labelled.sum().clamp(min=1)
    return losses


def _check_lengths(counts: sp.csr_matrix, library_size: NDArray[np.float32], targets: Targets) -> None:
    found = {
        "library_size": np.size(library_size),
        "embedding": len(targets.embedding),
        "populations": len(targets.populations),
        "map": len(targets.map),
        "types": counts.shape[0] if targets.types is None else len(targets.types),
    }
    wrong = {name: n for name, n in found.items() if n != counts.shape[0]}
    if wrong:
        msg = f"The counts have {counts.shape[0]} cells, but the targets {wrong}; all must be of the same cells."
        raise TrainingError(msg)


def _check_finite(means: dict[str, float], epoch: int) -> None:
    bad = [name for name, value in means.items() if not math.isfinite(value)]
    if bad:
        msg = (
            f"The student's loss ({', '.join(bad)}) is not finite in epoch {epoch}. "
            "Check the counts for absurd values, or lower the student's learning rate."
        )
        raise TrainingError(msg)
