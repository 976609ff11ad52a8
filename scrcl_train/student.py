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

MIN_LIBRARY = 1e-6
"""Library sizes are raised to this, so that a cell without counts gives roots of 1 and not 0 / 0."""
N_STEPS = 58
"""Steps in a unit of the root: so many that 125 is the most that a gene can come to, all counts of a cell being its.
The product of two such numbers with weights of 8 bits, added, fits the 16 bits that older processors add them in."""
STEP = 8 / N_STEPS
"""What a step stands for: 8 (1 + r)^(1/8) rises with r from 0 on as log(1 + r) does."""
MAX_STEPS = 255
"""What 8 bits hold; reached only where counts exceed the library size."""
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
    n_components: int = 32
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
    """(N, Q) leading principal components of the input."""
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
        (G, Q) principal directions of the input, from `fit_input_components`; None: zeros.

    Notes
    -----
    With x the counts and s the library size of a cell,

    .. math:: v = \delta \, \mathrm{round}(58 ((1 + 10^4 x / s)^{1/8} - 1)) - mean, \quad h = relu(W v + b)

    with \delta = 8 / 58, and every head is linear in h, but the map, which has a hidden layer of its own. Genes are
    centred but not scaled: scaling raises rarely seen genes to the weight of the others, and with them the noise of
    another batch. The root bends like a logarithm (4, 17 and 35 % above it at 1, 10 and 100 counts per ten thousand).
    It is taken in whole steps, and once the student has learned, W is rounded too (`round_weights`), so that its first
    product, most of the work, is of whole numbers: several times as fast, and the same on every processor. Decision 2.
    """

    def __init__(
        self,
        mean: NDArray[np.float32],
        config: StudentConfig,
        *,
        n_populations: int,
        n_types: int = 0,
        directions: NDArray[np.float32] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.n_types = n_types
        self.mean = nn.Buffer(torch.from_numpy(mean.astype(np.float32)))
        shape = mean.size, min(config.n_components, mean.size)
        self.directions = nn.Buffer(torch.zeros(shape) if directions is None else torch.from_numpy(directions))
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
        return torch.sqrt(torch.sqrt(torch.sqrt(rate + unit))) - N_STEPS

    def forward(self, counts: Tensor, library_size: Tensor) -> StudentOutput:
        """Map raw counts (N, G) and library sizes (N, 1), both float32, to all outputs."""
        steps = torch.round(self.count_steps(counts, library_size)).clamp(max=MAX_STEPS)  # (N, G)
        centred = steps * STEP - self.mean
        return self.answer(self.first(centred), centred @ self.directions)

    def answer(self, summed: Tensor, components: Tensor) -> StudentOutput:
        """Map the first layer's sums (N, h) and the components (N, Q) to all outputs."""
        hidden = self.dropout(torch.relu(summed))  # (N, h)
        raw = self.embedding_head(hidden)  # (N, D)
        embedding = raw / torch.sqrt((raw * raw).sum(dim=1, keepdim=True).clamp(min=MIN_SQUARED_NORM))
        # The picture must not bend the features that the types rest on: no gradient from the map into the trunk.
        place = self.map_head(hidden.detach()) * self.map_scale + self.map_centre  # (N, 2)
        types = None if self.type_head is None else functional.log_softmax(self.type_head(hidden), dim=1)
        populations = functional.log_softmax(self.population_head(hidden), dim=1)
        return StudentOutput(embedding, populations, place, components, types)

    @torch.no_grad()
    def round_weights(self) -> None:
        """Round the weights that genes are multiplied by, as `split_weights` splits them."""
        for weights in (self.first.weight, self.directions.T):
            whole, size = split_weights(weights)
            weights.copy_(whole * size[:, None])


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
    """(n, Q)"""
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
    return Prediction(joined[0], joined[1], joined[2], joined[3], joined[4] if student.n_types else None)


def fit_input_mean(
    counts: sp.csr_matrix, library_size: NDArray[np.float32], *, target_sum: float = 10_000.0
) -> NDArray[np.float32]:
    """Compute each gene's mean of `take_roots` over the training cells, (G,).

    Parameters
    ----------
    counts
        (n, G) raw counts.
    library_size
        (n,) or (n, 1) total counts over all genes.
    """
    roots = take_roots(counts, library_size, target_sum=target_sum)
    mean = np.bincount(roots.indices, roots.data, counts.shape[1]) / counts.shape[0]
    return mean.astype(np.float32)


def fit_input_components(
    counts: sp.csr_matrix, library_size: NDArray[np.float32], n_components: int, *, target_sum: float = 10_000.0
) -> NDArray[np.float32]:
    """Compute the leading principal directions of `take_roots`, (G, n_components), orthonormal.

    Parameters
    ----------
    counts
        (n, G) raw counts.
    library_size
        (n,) or (n, 1) total counts over all genes.
    n_components
        At most G.
    """
    from scipy.sparse.linalg import LinearOperator, eigsh

    roots = take_roots(counts, library_size, target_sum=target_sum)
    n, n_genes = roots.shape
    mean = np.asarray(roots.mean(axis=0)).reshape(-1)
    if n_genes < 4 * n_components:  # too few for the iteration
        covariance = (roots.T @ roots).toarray() / n - np.outer(mean, mean)
        return np.linalg.eigh(covariance)[1][:, ::-1][:, :n_components].astype(np.float32)

    def multiply(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        flat = np.reshape(vector, -1)
        found: NDArray[np.float64] = roots.T @ (roots @ flat) / n - mean * (mean @ flat)
        return found

    operator = LinearOperator((n_genes, n_genes), matvec=multiply, dtype=np.float64)
    _, vectors = eigsh(operator, k=n_components, v0=np.ones(n_genes), tol=1e-6)
    return np.ascontiguousarray(vectors[:, ::-1], dtype=np.float32)


def take_roots(
    counts: sp.csr_matrix, library_size: NDArray[np.float32], *, target_sum: float = 10_000.0
) -> sp.csr_matrix:
    """Return 8 ((1 + r)^(1/8) - 1), r counts per `target_sum`, in whole steps of `STEP`: the input before centring.

    Returns
    -------
    csr_matrix
        (n, G) float64.
    """
    rates = _rates(counts, library_size, target_sum)
    rates.data = STEP * np.minimum(np.rint(N_STEPS * np.expm1(np.log1p(rates.data) / 8)), MAX_STEPS)
    return rates


def log_normalise(
    counts: sp.csr_matrix, library_size: NDArray[np.float32], *, target_sum: float = 10_000.0
) -> sp.csr_matrix:
    """Return log1p of counts per `target_sum`, (n, G) CSR float64."""
    rates = _rates(counts, library_size, target_sum)
    rates.data = np.log1p(rates.data)
    return rates


def _rates(counts: sp.csr_matrix, library_size: NDArray[np.float32], target_sum: float) -> sp.csr_matrix:
    library = np.maximum(np.reshape(library_size, -1).astype(np.float64), MIN_LIBRARY)
    rates = sp.csr_matrix(counts, dtype=np.float64, copy=True)
    rates.sum_duplicates()
    rates.data *= np.repeat(target_sum / library, np.diff(rates.indptr))
    return rates
