"""From the encoder's outputs to answers: calibrated posterior, best type, or unknown. Numpy only.

Every step works on one cell at a time and in a fixed order of additions, so that a cell's answer is the same to the
last bit whatever else is in its block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.contract import Centroids, Manifest
from scrcl_infer.errors import BundleIntegrityError
from scrcl_infer.levels import compute_level_confidence
from scrcl_infer.result import AssignedBlock

if TYPE_CHECKING:
    from scrcl_infer.encoder import EncoderOutput


def decide(
    output: EncoderOutput,
    has_counts: NDArray[np.bool_],
    manifest: Manifest,
    centroids: Centroids,
    *,
    reject: bool = True,
    start: int = 0,
) -> AssignedBlock:
    """Answer for a block of N cells.

    Parameters
    ----------
    output
        What the encoder gave for the cells.
    has_counts
        (N,) whether the cell has any count in the model's genes; one without is unknown in every respect.
    manifest
        Populations, types and calibration of the bundle.
    centroids
        Populations in the embedding, for the rejection score.
    reject
        Answer unknown where the rejection score is below the calibrated threshold.
    start
        Index of the block's first cell in the file.

    Raises
    ------
    BundleIntegrityError
        The encoder gave a value that is not finite for a cell that has counts.
    """
    _check_finite(output, has_counts, start)
    posterior = compute_type_posterior(output.log_posterior, output.log_type_posterior, manifest)
    cell_type = posterior.argmax(axis=1).astype(np.int32)
    confidence, margin = best_and_margin(posterior)
    level_confidence = compute_level_confidence(posterior, cell_type, manifest.levels)
    if reject:
        score = compute_rejection_score(posterior, output.embedding, centroids)
        cell_type[score < manifest.calibration.threshold] = -1
    population = output.log_posterior.argmax(axis=1).astype(np.int32)
    keep = has_counts[:, None]
    return AssignedBlock(
        start=start,
        population=np.where(has_counts, population, -1).astype(np.int32),
        cell_type=np.where(has_counts, cell_type, -1).astype(np.int32),
        confidence=np.where(has_counts, confidence, 0).astype(np.float32),
        margin=np.where(has_counts, margin, 0).astype(np.float32),
        embedding=np.where(keep, output.embedding, 0).astype(np.float32),
        map=np.where(keep, output.map, np.nan).astype(np.float32),
        level_confidence=np.where(keep, level_confidence, 0).astype(np.float32),
    )


def compute_type_posterior(
    log_posterior: NDArray[np.float32], log_type_posterior: NDArray[np.float32] | None, manifest: Manifest
) -> NDArray[np.float64]:
    """Return the calibrated probability of each type.

    The type head's posterior where the encoder has one; else the sum of the posteriors of each type's populations.

    Parameters
    ----------
    log_posterior
        (N, K) over populations.
    log_type_posterior
        (N, T) over types, or None.
    manifest
        Populations, types and temperature of the bundle.

    Returns
    -------
    NDArray
        (N, T) rows sum to 1.
    """
    temperature = manifest.calibration.temperature
    if log_type_posterior is not None and log_type_posterior.shape[1]:
        return apply_temperature(log_type_posterior, temperature)
    by_population = apply_temperature(log_posterior, temperature)
    posterior = np.zeros((len(by_population), len(manifest.cell_types)))
    # One column after the other: a matrix product would add in an order that depends on the number of rows.
    for column, of_type in enumerate(type_of_population(manifest)):
        posterior[:, of_type] += by_population[:, column]
    return posterior


def apply_temperature(log_posterior: NDArray[np.float32], temperature: float) -> NDArray[np.float64]:
    """Return softmax(log_posterior / temperature), (N, C), row by row in double precision."""
    scaled = log_posterior.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum(axis=1, keepdims=True)
    return scaled


def compute_rejection_score(
    posterior: NDArray[np.float64], embedding: NDArray[np.float32], centroids: Centroids
) -> NDArray[np.float64]:
    """Return how well the model knows each cell; below the bundle's threshold a cell is unknown.

    Calibration sets the threshold with this same function.

    Parameters
    ----------
    posterior
        (N, T) calibrated probability of each type.
    embedding
        (N, D) unit rows.
    centroids
        Populations in the embedding.

    Returns
    -------
    NDArray
        (N,) in [0, 1]; the probability of the best type. Embedding and centroids do not enter yet.
    """
    del embedding, centroids
    best: NDArray[np.float64] = posterior.max(axis=1)
    return best


def type_of_population(manifest: Manifest) -> NDArray[np.int32]:
    """Return for each population the index of its type, (K,).

    Raises
    ------
    BundleIntegrityError
        A population carries a type that is not among the manifest's types.
    """
    index = {cell_type.name: i for i, cell_type in enumerate(manifest.cell_types)}
    orphans = [p.name for p in manifest.populations if p.cell_type not in index]
    if orphans:
        msg = (
            f"Bundle '{manifest.name}': populations {orphans[:5]} carry a type that is not among its {len(index)} cell "
            "types. The bundle is damaged: fetch or train it again."
        )
        raise BundleIntegrityError(msg)
    return np.array([index[p.cell_type] for p in manifest.populations], dtype=np.int32)


def best_and_margin(posterior: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return the probability of the best type and its lead over the second, (N,) each, of posteriors (N, T).

    A model of one type leads by all of it.
    """
    if posterior.shape[1] == 1:
        return posterior[:, 0], posterior[:, 0]
    top_two = np.partition(posterior, -2, axis=1)[:, -2:]
    return top_two[:, 1], top_two[:, 1] - top_two[:, 0]


def _check_finite(output: EncoderOutput, has_counts: NDArray[np.bool_], start: int) -> None:
    outputs = {
        "embedding": output.embedding,
        "log_posterior": output.log_posterior,
        "map": output.map,
        "log_type_posterior": output.log_type_posterior,
    }
    for name, values in outputs.items():
        if values is None:
            continue
        # A log posterior of -inf is a probability of zero, and fine.
        bad = np.isnan(values) | (np.isposinf(values) if name.startswith("log_") else np.isinf(values))
        rows = np.flatnonzero(bad.any(axis=1) & has_counts)
        if rows.size:
            msg = (
                f"The encoder's '{name}' is not finite for cell {start + rows[0]} (counting from 0), which has counts. "
                "Check the bundle with `scrcl-models verify`."
            )
            raise BundleIntegrityError(msg)
