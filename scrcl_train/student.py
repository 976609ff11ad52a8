"""The per-cell encoder that is exported: raw counts of one cell in, embedding, posteriors and map out.

It sees no graph and no other cell, so its answer for a cell depends on that cell only. The normalisation is part of the
network, so that any ONNX runtime gives the same answer from raw counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from scrcl_train.student_input import MAX_STEPS, MIN_LIBRARY, N_STEPS, STEP

MAX_WEIGHT = 127
"""What 8 bits hold with a sign."""
MIN_SQUARED_NORM = 1e-12
"""Floor of the embedding's squared length before the root; far below any trained cell's."""


@dataclass(frozen=True)
class StudentConfig:
    """Size of the student."""

    hidden: int = 256
    dim: int = 64
    """Width D of the embedding."""
    map_hidden: int = 64
    n_components: int = 64
    """Principal components Q of the input that are given out, to tell strange cells."""
    dropout: float = 0.5
    """Probability of zeroing a hidden unit while learning."""
    target_sum: float = 10_000.0
    """Counts per cell that the input is normalised to."""


class StudentOutput(NamedTuple):
    """Outputs in the order in which they are exported (N cells)."""

    embedding: Tensor
    """(N, D) unit rows."""
    log_posterior: Tensor
    """(N, K) natural log, rows of exp sum to 1."""
    map: Tensor
    """(N, 2) in the units of the map it was fitted to."""
    components: Tensor
    """(N, Q + 2) the input along `directions`, and its length."""
    rarity: Tensor
    """(N, C) sum of the rarities that the cell's genes have in each class; whole numbers."""
    log_type_posterior: Tensor | None
    """(N, T), None without a type head."""


class Student(nn.Module):
    r"""One hidden layer with four heads.

    Parameters
    ----------
    mean
        (G,) mean of the input genes over the training cells, from `fit_input_mean`.
    config
        Sizes; see `StudentConfig`.
    n_populations
        K >= 1.
    n_types
        T; 0 leaves the type head out.
    directions
        (G, Q + 1) of the genes' mean and the principal components, from `fit_input_directions`; None: zeros.
    rarity
        (G, C) of the genes in the classes, from `scrcl_train.rarity.fit_rarity`; None: one class, nothing is rare.

    Notes
    -----
    With x the counts and s the library size of a cell,

    .. math:: v = \delta \, \mathrm{round}(58 ((1 + 10^4 x / s)^{1/8} - 1)) - mean, \quad h = relu(W v + b)

    with \delta = 8 / 58, and every head is linear in h, but the map, which has a hidden layer of its own. Genes are
    centred but not scaled: scaling raises rarely seen genes to the weight of the others, and with them the noise of
    another batch. The root bends like a logarithm (4, 17 and 35 % above it at 1, 10 and 100 counts per ten thousand).
    It is taken in whole steps, and once the student has learned, W is rounded too (`round_weights`), so that its first
    product, most of the work, is of whole numbers: the encoder is twice as fast, and its sums are exact. Decision 2.
    """

    def __init__(
        self,
        mean: NDArray[np.float32],
        config: StudentConfig,
        *,
        n_populations: int,
        n_types: int = 0,
        directions: NDArray[np.float32] | None = None,
        rarity: NDArray[np.uint8] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.n_types = n_types
        self.mean = nn.Buffer(torch.from_numpy(mean.astype(np.float32)))
        shape = mean.size, min(config.n_components + 1, mean.size)
        self.directions = nn.Buffer(torch.zeros(shape) if directions is None else torch.from_numpy(directions))
        rare = torch.zeros(mean.size, 1) if rarity is None else torch.from_numpy(rarity.astype(np.float32))
        self.rarity = nn.Buffer(rare)
        self.map_centre = nn.Buffer(torch.zeros(2))
        self.map_scale = nn.Buffer(torch.ones(2))
        self.first = nn.Linear(mean.size, config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.embedding_head = nn.Linear(config.hidden, config.dim)
        self.population_head = nn.Linear(config.hidden, n_populations)
        self.type_head = nn.Linear(config.hidden, n_types) if n_types else None
        self.map_head = nn.Sequential(
            nn.Linear(config.hidden, config.map_hidden), nn.ReLU(), nn.Linear(config.map_hidden, 2)
        )

    @property
    def n_genes(self) -> int:
        """Number of input genes G."""
        return int(self.mean.numel())

    @property
    def n_populations(self) -> int:
        """Number of populations K."""
        return self.population_head.out_features

    def count_steps(self, counts: Tensor, library_size: Tensor) -> Tensor:
        """Return the roots of counts (N, G) and library sizes (N, 1) in steps, (N, G), not yet rounded."""
        # The roots of N_STEPS^8 (1 + r): the factor goes in among passes over the genes that are made in any case.
        unit = float(N_STEPS**8)
        rate = counts * (self.config.target_sum * unit / library_size.clamp(min=MIN_LIBRARY))  # (N, G)
        # torch's square root may be off by a last place, onnxruntime's is not; where answers are asked for, they agree.
        root = torch.sqrt if self.training else _exact_root
        return root(root(root(rate + unit))) - N_STEPS

    def forward(self, counts: Tensor, library_size: Tensor) -> StudentOutput:
        """Map raw counts (N, G) and library sizes (N, 1), both float32, to all outputs."""
        steps = self.count_steps(counts, library_size)  # (N, G)
        roots = STEP * torch.round(steps).clamp(max=MAX_STEPS)
        rarity = (counts > 0).float() @ self.rarity
        return self.answer(steps, self.first(roots - self.mean), roots @ self.directions, rarity)

    def answer(self, steps: Tensor, summed: Tensor, along: Tensor, rarity: Tensor) -> StudentOutput:
        """Map the steps (N, G), the first layer's sums (N, h) and the input's parts (N, Q + 1) to all outputs.

        `rarity` (N, C) is given out as it is.
        """
        hidden = self.dropout(torch.relu(summed))  # (N, h)
        raw = self.embedding_head(hidden)  # (N, D)
        embedding = raw / torch.sqrt((raw * raw).sum(dim=1, keepdim=True).clamp(min=MIN_SQUARED_NORM))
        # The picture must not bend the features that the types rest on: no gradient from the map into the trunk.
        place = self.map_head(hidden.detach()) * self.map_scale + self.map_centre  # (N, 2)
        types = None if self.type_head is None else functional.log_softmax(self.type_head(hidden), dim=1)
        populations = functional.log_softmax(self.population_head(hidden), dim=1)
        length = STEP * torch.sqrt((steps * steps).sum(dim=1, keepdim=True))  # (N, 1)
        return StudentOutput(embedding, populations, place, torch.cat([along, length], dim=1), rarity, types)

    @torch.no_grad()
    def round_weights(self) -> None:
        """Round the weights that genes are multiplied by, as `split_weights` splits them."""
        for weights in (self.first.weight, self.directions.T):
            whole, size = split_weights(weights)
            weights.copy_(whole * size[:, None])


def _exact_root(values: Tensor) -> Tensor:
    """Square root of float32, rounded correctly; onnxruntime's own is."""
    return torch.sqrt(values) if torch.onnx.is_in_onnx_export() else torch.sqrt(values.double()).float()


def split_weights(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Split the weights (h, G) of units into whole numbers (h, G) of `MAX_WEIGHT` at most and the size (h,) of one.

    What is once rounded is split into the same again.
    """
    size = (weights.abs().amax(dim=1) / MAX_WEIGHT).clamp(min=torch.finfo(weights.dtype).tiny)
    return torch.round(weights / size[:, None]), size


@dataclass(frozen=True)
class Prediction:
    """A student's answers as arrays (n cells)."""

    embedding: NDArray[np.float32]
    """(n, D) unit rows."""
    log_posterior: NDArray[np.float32]
    """(n, K)"""
    map: NDArray[np.float32]
    """(n, 2)"""
    components: NDArray[np.float32]
    """(n, Q + 2)"""
    rarity: NDArray[np.float32]
    """(n, C)"""
    log_type_posterior: NDArray[np.float32] | None
    """(n, T), None without a type head."""


def predict(
    student: Student, counts: sp.csr_matrix, library_size: NDArray[np.float32], *, block_size: int = 2048
) -> Prediction:
    """Run a student over cells, without dropout and in constant memory per block.

    Parameters
    ----------
    student
        The network; its mode is put back afterwards.
    counts
        (n, G) raw counts.
    library_size
        (n,) or (n, 1) total counts over all genes.
    """
    device = student.mean.device
    library = np.asarray(library_size, dtype=np.float32).reshape(-1, 1)
    outputs: list[list[NDArray[np.float32]]] = []
    training = student.training
    student.eval()
    with torch.no_grad():
        for start in range(0, max(counts.shape[0], 1), block_size):
            rows = slice(start, start + block_size)
            block = torch.from_numpy(counts[rows].toarray().astype(np.float32, copy=False)).to(device)
            answer = student(block, torch.from_numpy(library[rows]).to(device))
            outputs.append([part.cpu().numpy() for part in answer if part is not None])
    student.train(training)
    joined = [np.concatenate(parts) for parts in zip(*outputs, strict=True)]
    embedding, populations, place, components, rarity, *types = joined
    return Prediction(embedding, populations, place, components, rarity, types[0] if types else None)
