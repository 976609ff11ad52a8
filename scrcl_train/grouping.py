"""How the cells of a training run are grouped, and what the student sees of them: alone, or as spots among spots."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scrcl_infer.contract import SpatialSpec
from scrcl_infer.spatial import smooth_counts, vote
from scrcl_train.consensus import make_views
from scrcl_train.distil import Targets
from scrcl_train.domains import find_domains
from scrcl_train.naming import compute_types, encode_types
from scrcl_train.populations import Populations, cluster_embedding, find_populations, order_by_size
from scrcl_train.student import StudentConfig

if TYPE_CHECKING:
    from scrcl_train.config import TrainConfig
    from scrcl_train.data import TrainingData
    from scrcl_train.features import Features
    from scrcl_train.trainer import Teacher


def group_cells(
    data: TrainingData,
    features: Features,
    teacher: Teacher,
    config: TrainConfig,
    *,
    n_populations: int | None = None,
    seed: int = 0,
) -> tuple[Populations, NDArray[np.float32]]:
    """Find the populations without labels; return them and the embedding (n, D) that the student learns.

    Parameters
    ----------
    data, features, teacher, config
        Of one training run.
    n_populations
        K; None estimates it.
    seed
        Of the many clusterings behind the consensus.
    """
    if data.spots is not None and config.teacher.refinement == "programs":
        domains = find_domains(
            data.counts[:, features.hvgs],
            data.library_size,
            data.spots,
            n_neighbors=config.graph.n_neighbors,
            n_domains=n_populations,
            seed=seed,
        )
        populations, embedding = domains.populations, domains.embedding
    else:
        embedding = clustered_embedding(teacher, config)
        populations = group_by_teacher(features, teacher, n_populations=n_populations, seed=seed)
    if data.spots is not None and config.n_voters:
        voted = vote(populations.labels, data.spots, n_voters=config.n_voters)
        populations = order_by_size(voted, chosen=populations.chosen)
    return populations, embedding


def student_input(
    data: TrainingData, features: Features, config: TrainConfig
) -> tuple[sp.csr_matrix, NDArray[np.float32], SpatialSpec | None]:
    """Return what the student sees of the cells: counts (n, g), library sizes (n,), and how they were smoothed."""
    counts, library_size = data.counts[:, features.hvgs], data.library_size
    if data.spots is None:
        return counts, library_size, None
    spec = SpatialSpec(n_neighbors=config.graph.n_neighbors, n_steps=config.teacher.smoothing[0])
    smoothed, totals = smooth_counts(counts, library_size, data.spots, spec, target_sum=StudentConfig().target_sum)
    return sp.csr_matrix(smoothed), totals.ravel(), spec


def group_by_teacher(
    features: Features, teacher: Teacher, *, n_populations: int | None = None, seed: int = 0
) -> Populations:
    """Group cells by a consensus over shrunk components and borders in [Z₁, Z₂]; the paper's by k-means on these.

    Parameters
    ----------
    features, teacher
        Of one training run.
    n_populations
        K; None estimates it.
    """
    refined = np.concatenate([teacher.z_1, teacher.z_2], axis=1)
    if features.components is None or features.neighbors is None:
        return cluster_embedding(refined, n_populations=n_populations, seed=seed)
    views = make_views(features.components, features.neighbors, refined)
    return find_populations(views, n_populations=n_populations, seed=seed)


def clustered_embedding(teacher: Teacher, config: TrainConfig) -> NDArray[np.float32]:
    """Return the teacher's embedding (n, D) that the student learns: [Z₁, Z₂] in the paper's presets, else [E₁, E₂]."""
    parts = (teacher.z_1, teacher.z_2) if config.teacher.refinement == "paper" else (teacher.emb_1, teacher.emb_2)
    return np.concatenate(parts, axis=1)


def make_targets(
    populations: Populations,
    embedding: NDArray[np.float32],
    place: NDArray[np.float32],
    labels: NDArray[np.object_] | None,
) -> Targets:
    """Return what the student has to reproduce of the cells: where they lie, their groups, and types from labels."""
    type_names = compute_types(labels)
    return Targets(
        embedding=embedding,
        populations=populations.labels,
        n_populations=populations.n_populations,
        map=place,
        types=None if labels is None else encode_types(labels, type_names),
        n_types=len(type_names),
    )
