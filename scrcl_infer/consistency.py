"""Check that the parts of a bundle speak of the same genes, populations and types."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.contract import FILES, UNKNOWN, Bundle, GeneTable, Manifest
from scrcl_infer.errors import BundleIntegrityError
from scrcl_infer.levels import find_level_problems
from scrcl_infer.ontology import find_problem
from scrcl_infer.parts import Golden, Rejection


def check_consistent(bundle: Bundle) -> None:
    """Check the manifest against itself and the arrays against the manifest; done before writing and after reading.

    Raises
    ------
    BundleIntegrityError
        The text lists every disagreement: where, what was found, what was expected.
    """
    problems = [
        *_gene_problems(bundle.manifest.genes),
        *_manifest_problems(bundle.manifest),
        *_array_problems(bundle),
        *_graph_problems(bundle),
    ]
    problems += [*_rejection_problems(bundle.rejection), *_held_out_problems(bundle)]
    if problems:
        msg = "the parts of the bundle do not fit together: " + "; ".join(problems) + ". Export the model again."
        raise BundleIntegrityError(msg)


def _gene_problems(genes: GeneTable) -> Iterator[str]:
    n_genes = len(genes.names)
    for name in ("symbols", "ensembl_ids", "evidence"):
        n_entries = len(getattr(genes, name))
        if n_entries != n_genes:
            yield f"genes.{name} has {n_entries} entries, expected {n_genes}"
    if len(set(genes.names)) != n_genes:
        yield "genes.names holds a name twice"
    if genes.evidence and not (min(genes.evidence) >= 0 and math.isclose(sum(genes.evidence), 1, abs_tol=1e-3)):
        yield f"genes.evidence sums to {sum(genes.evidence)}, expected non-negative shares that sum to 1"
    if len(genes.count_shares) not in (0, n_genes):
        yield f"genes.count_shares has {len(genes.count_shares)} entries, expected {n_genes}"
    if not all(0 <= share < math.inf for share in genes.count_shares):
        yield "genes.count_shares holds negative numbers or such that are not finite, expected shares"


def _manifest_problems(manifest: Manifest) -> Iterator[str]:
    spec, calibration = manifest.encoder, manifest.calibration
    types = [cell_type.name for cell_type in manifest.cell_types]
    if len(manifest.populations) != spec.n_populations:
        yield f"populations has {len(manifest.populations)} entries, expected {spec.n_populations}"
    if spec.n_types not in (0, len(types)):
        yield f"cell_types has {len(types)} entries, expected {spec.n_types}"
    if len(set(types)) != len(types) or UNKNOWN in types:
        yield f"cell_types are {types}, expected names that differ, none of them '{UNKNOWN}'"
    if strangers := sorted({population.cell_type for population in manifest.populations} - set(types)):
        yield f"populations are of the types {strangers}, which are not among cell_types {types}"
    for cell_type in manifest.cell_types:
        if cell_type.ontology_id is not None and (problem := find_problem(cell_type.ontology_id)):
            yield f"cell type '{cell_type.name}': {problem}"
    yield from find_level_problems(manifest)
    if not calibration.temperature > 0:
        yield f"calibration.temperature is {calibration.temperature}, expected more than 0"
    if not math.isfinite(calibration.threshold):
        yield f"calibration.threshold is {calibration.threshold}, expected a finite number"


def _array_problems(bundle: Bundle) -> Iterator[str]:
    spec, n_genes = bundle.manifest.encoder, len(bundle.manifest.genes.names)
    graph, golden = bundle.gene_graph, bundle.golden
    k, d = spec.n_populations, spec.dim
    real, whole = np.dtype(np.float32), np.dtype(np.int64)
    # None: that length is free
    wanted: list[tuple[str, NDArray[np.generic], tuple[int | None, ...], np.dtype[np.generic]]] = [
        (f"{FILES.centroids}/centroids", bundle.centroids.centroids, (k, d), real),
        (f"{FILES.centroids}/radii", bundle.centroids.radii, (k,), real),
        (f"{FILES.gene_graph}/indptr", graph.indptr, (n_genes + 1,), whole),
        (f"{FILES.gene_graph}/indices", graph.indices, (None,), whole),
        (f"{FILES.gene_graph}/correlations", graph.correlations, (graph.indices.size,), real),
        (f"{FILES.gene_graph}/embedding", graph.embedding, (n_genes, None), real),
        (f"{FILES.gene_graph}/association", graph.association, (k, n_genes), real),
    ]
    if (rejection := bundle.rejection) is not None:
        c, m, q = len(rejection.embedding_means), len(rejection.log_detected), rejection.components_whitening.shape[-1]
        v = len(rejection.overlap)
        shapes: dict[str, tuple[int | None, ...]] = {
            "embedding_whitening": (d, d), "embedding_means": (c, d), "embedding_radii": (c,),
            "components_whitening": (q, q), "components_means": (c, q), "components_radii": (c,),
            "profile_means": (c, q + 1), "profile_radii": (c,),
            "log_detected": (m,), "overlap": (v,), "weights": (m, 5),
            "median": (v, m, 5), "spread": (v, m, 5), "limit": (v, m),
        }  # fmt: skip
        wanted += [(f"{FILES.rejection}/{name}", getattr(rejection, name), shapes[name], real) for name in shapes]
        wanted.append((f"{FILES.rejection}/rarity", rejection.rarity, (n_genes, c), np.dtype(np.uint8)))
    if (held_out := bundle.held_out) is not None:
        n_held_out = len(held_out.population)
        wanted += [
            (f"{FILES.held_out}/log_posterior", held_out.log_posterior, (n_held_out, k), real),
            (f"{FILES.held_out}/population", held_out.population, (n_held_out,), whole),
            (f"{FILES.held_out}/within", held_out.within, (n_held_out,), np.dtype(np.bool_)),
        ]
    widths = {"counts": n_genes, "library_size": 1, "embedding": d, "log_posterior": k, "map": 2}
    for item in dataclasses.fields(Golden):
        shape = (len(golden.counts), widths.get(item.name, spec.n_types))
        wanted.append((f"{FILES.golden}/{item.name}", getattr(golden, item.name), shape, real))
    for name, array, expected, dtype in wanted:
        fits = len(array.shape) == len(expected) and all(
            length in (None, found) for found, length in zip(array.shape, expected, strict=True)
        )
        if not fits or array.dtype != dtype:
            shape_text = "(" + ", ".join("any" if length is None else str(length) for length in expected) + ")"
            yield f"{name} is {array.dtype} {array.shape}, expected {dtype} {shape_text}"


def _rejection_problems(rejection: Rejection | None) -> Iterator[str]:
    """Yield what would make every cell, or none, unknown."""
    if rejection is None:
        return
    for item in dataclasses.fields(Rejection):
        array = getattr(rejection, item.name)
        if not (array.size and np.isfinite(array).all()):
            yield f"{FILES.rejection}/{item.name} is empty or holds values that are not finite"
    for name in ("log_detected", "overlap"):
        if np.any(np.diff(getattr(rejection, name)) <= 0):
            yield f"{FILES.rejection}/{name} does not rise"
    for name in ("spread", "embedding_radii", "components_radii", "profile_radii"):
        if np.any(getattr(rejection, name) <= 0):
            yield f"{FILES.rejection}/{name} is not above 0"
    if np.any(rejection.weights < 0):
        yield f"{FILES.rejection}/weights holds a value below 0"


def _held_out_problems(bundle: Bundle) -> Iterator[str]:
    """Yield what new names could not be calibrated by."""
    if (held_out := bundle.held_out) is None:
        return
    spec = bundle.manifest.encoder
    if spec.n_types:
        yield f"{FILES.held_out} is there, expected none with a type head"
    if not (held_out.log_posterior.size and np.isfinite(held_out.log_posterior).all()):
        yield f"{FILES.held_out}/log_posterior is empty or holds values that are not finite"
    if np.any((held_out.population < 0) | (held_out.population >= spec.n_populations)):
        yield f"{FILES.held_out}/population goes beyond 0 to {spec.n_populations - 1}"


def _graph_problems(bundle: Bundle) -> Iterator[str]:
    """Yield what would make the gene graph an invalid CSR matrix."""
    graph, n_genes = bundle.gene_graph, len(bundle.manifest.genes.names)
    indptr, indices = graph.indptr, graph.indices
    if indptr.size and (indptr[0] != 0 or indptr[-1] != indices.size or np.any(np.diff(indptr) < 0)):
        yield f"{FILES.gene_graph}/indptr does not rise from 0 to {indices.size}"
    if indices.size and (indices.min() < 0 or indices.max() >= n_genes):
        yield f"{FILES.gene_graph}/indices runs from {indices.min()} to {indices.max()}, expected 0 to {n_genes - 1}"
