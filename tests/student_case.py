"""A small world whose truth is known, and a student taught in it, for the tests of everything behind the teacher."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scrcl_infer.contract import Bundle, Calibration, GeneTable, Provenance
from scrcl_train.distil import DistilConfig, Targets, distil
from scrcl_train.export import ModelParts, build_bundle
from scrcl_train.gene_structure import compute_evidence, compute_gene_graph
from scrcl_train.naming import name_populations
from scrcl_train.populations import fit_centroids
from scrcl_train.student import Student, StudentConfig, predict

N_GENES = 60
MARKERS = 10
"""Genes 0-9 are raised in population 0, 10-19 in population 1, 20-29 in population 2; the others in none."""
SHARES = (0.5, 0.3, 0.2)
QUICK = DistilConfig(student=StudentConfig(hidden=32, dim=6, map_hidden=16), epochs=1, min_steps=160, batch_size=64)


@dataclass(frozen=True)
class World:
    """Cells of three populations."""

    counts: sp.csr_matrix
    library_size: NDArray[np.float32]
    """Half of each cell's counts lie in genes outside the 60."""
    truth: NDArray[np.int64]


def make_world(n_cells: int = 360, *, seed: int = 0) -> World:
    rng = np.random.default_rng(seed)
    truth = np.sort(rng.choice(3, n_cells, p=SHARES)).astype(np.int64)
    rate = np.ones((3, N_GENES))
    for k in range(3):
        rate[k, k * MARKERS : (k + 1) * MARKERS] = 8.0
    depth = rng.lognormal(0, 0.3, n_cells)[:, None]
    inside = rng.poisson(rng.gamma(4.0, rate[truth] * depth / 4.0)).astype(np.float32)
    library = inside.sum(axis=1) + rng.poisson(130 * depth[:, 0]).astype(np.float32)
    return World(sp.csr_matrix(inside), library.astype(np.float32), truth)


def make_targets(world: World, *, labelled: bool) -> Targets:
    rng = np.random.default_rng(1)
    corner = np.eye(3, 8)[world.truth]
    place = np.array([[10.0, 0.0], [-5.0, 8.0], [-5.0, -8.0]])[world.truth]
    return Targets(
        embedding=(corner + rng.normal(0, 0.1, corner.shape)).astype(np.float32),
        populations=world.truth,
        n_populations=3,
        map=(place + rng.normal(0, 0.5, place.shape)).astype(np.float32),
        types=world.truth if labelled else None,
        n_types=3 if labelled else 0,
    )


@lru_cache
def teach(*, labelled: bool) -> tuple[World, Student]:
    world = make_world()
    return world, distil(world.counts, world.library_size, make_targets(world, labelled=labelled), config=QUICK)


def make_parts(*, labelled: bool) -> ModelParts:
    world, student = teach(labelled=labelled)
    names = tuple(f"Gene{i}" for i in range(N_GENES))
    labels = np.array(["T cell", "B cell", "NK"], dtype=object)[world.truth] if labelled else None
    populations, types = name_populations(world.truth, labels, ontology_ids={"B cell": "CL:0000236"})
    answer = predict(student, world.counts, world.library_size)
    rng = np.random.default_rng(2)
    return ModelParts(
        name="small-world",
        genes=GeneTable(
            names, names, ("",) * N_GENES, compute_evidence(student, world.counts, world.library_size), "Homo sapiens"
        ),
        populations=populations,
        cell_types=types,
        calibration=Calibration(1.5, 0.4, 0.95, 0.02 if labelled else None, 52),
        provenance=Provenance(
            "small.h5ad", "ab" * 32, len(world.truth), 100, "default", 0, ("cell_type",) if labelled else (), None, {}
        ),
        centroids=fit_centroids(answer.embedding, world.truth, 3),
        gene_graph=compute_gene_graph(
            world.counts,
            world.library_size,
            rng.random((N_GENES, 4), dtype=np.float32),
            make_targets(world, labelled=labelled).embedding,
            world.truth,
        ),
    )


@lru_cache
def make_small_bundle(*, labelled: bool) -> Bundle:
    world, student = teach(labelled=labelled)
    return build_bundle(student, make_parts(labelled=labelled), world.counts, world.library_size)


def without_augmentation(config: DistilConfig = QUICK) -> DistilConfig:
    still = replace(config.augment, thin=False, max_gene_dropout=0.0, shrink_library=0.0)
    return replace(config, augment=still)
