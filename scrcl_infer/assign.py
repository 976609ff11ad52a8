"""From the encoder's outputs to answers: calibrated posterior, best type, or unknown. Numpy only.

Every step works on one cell at a time and in a fixed order of additions, so that a cell's answer is the same to the
last bit whatever else is in its block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.contract import Manifest
from scrcl_infer.errors import BundleIntegrityError
from scrcl_infer.levels import compute_level_confidence
from scrcl_infer.result import AssignedBlock
from scrcl_infer.strangeness import Reference, Spaces, compute_strangeness

if TYPE_CHECKING:
    from scrcl_infer.encoder import EncoderOutput


def decide(
    output: EncoderOutput,
    n_detected: NDArray[np.int64],
    manifest: Manifest,
    reference: Reference | None = None,
    *,
    reject: bool = True,
    start: int = 0,
) -> AssignedBlock:
    """Answer for a block of N cells.

    Parameters
    ----------
    output
        What the encoder gave for the cells.
    n_detected
        (N,) number of the model's genes of which the cell has a count; one without any is unknown in every respect.
    manifest
        Populations, types and calibration of the bundle.
    reference
        What held-out training cells gave, for the file; None in old bundles, which reject by the probability alone.
    reject
        Answer unknown where the cell is too strange, or the best type's probability too low.
    start
        Index of the block's first cell in the file.

    Raises
    ------
    BundleIntegrityError
        The encoder gave a value that is not finite for a cell that has counts.
    """
    has_counts = n_detected > 0
    _check_finite(output, has_counts, start)
    posterior = compute_type_posterior(output.log_posterior, output.log_type_posterior, manifest)
    cell_type = posterior.argmax(axis=1).astype(np.int32)
    confidence, margin = best_and_margin(posterior)
    level_confidence = compute_level_confidence(posterior, cell_type, manifest.levels)
    strangeness = None if reference is None else _measure(output, n_detected, reference)
    if reject:
        low = posterior.max(axis=1) < manifest.calibration.threshold
        cell_type[low if strangeness is None else low | (strangeness > 0)] = -1
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
        strangeness=strangeness,
    )


def compute_type_posterior(
    log_posterior: NDArray[np.float32], log_type_posterior: NDArray[np.float32] | None, manifest: Manifest
) -> NDArray[np.float64]:
    """Return the calibrated probability of each type.

    The type head's posterior where the encoder has one; else the sum of the posteriors of each type's populations. The
    temperature comes after the sum: before it, a type of one population would lose to one that many share.

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
    if has_types(log_type_posterior):
        return apply_temperature(log_type_posterior, temperature)
    return apply_temperature(
        add_populations(log_posterior, type_of_population(manifest), len(manifest.cell_types)), temperature
    )


def add_populations(
    log_posterior: NDArray[np.float32], type_of_population: NDArray[np.integer], n_types: int
) -> NDArray[np.float64]:
    """Add the probabilities of each type's populations up.

    Parameters
    ----------
    log_posterior
        (N, K) over populations.
    type_of_population
        (K,) index of each population's type.
    n_types
        T.

    Returns
    -------
    NDArray
        (N, T) natural log; minus infinity for a type without populations.
    """
    by_population = apply_temperature(log_posterior, 1.0)
    posterior = np.zeros((len(by_population), n_types))
    # One column after the other: a matrix product would add in an order that depends on the number of rows.
    for column, of_type in enumerate(type_of_population):
        posterior[:, of_type] += by_population[:, column]
    with np.errstate(divide="ignore"):
        return np.log(posterior)


def has_types(log_type_posterior: NDArray[np.float32] | None) -> TypeGuard[NDArray[np.float32]]:
    """Return whether the encoder has a type head; without one it gives nothing, or (N, 0)."""
    return log_type_posterior is not None and log_type_posterior.shape[1] > 0


def apply_temperature(log_posterior: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Return softmax(log_posterior / temperature), (N, C), row by row in double precision."""
    scaled = log_posterior.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum(axis=1, keepdims=True)
    return scaled


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


def _measure(output: EncoderOutput, n_detected: NDArray[np.int64], reference: Reference) -> NDArray[np.float32]:
    """Strangeness (N,), NaN for a cell without counts."""
    rarity, shape = output.rarity, (len(n_detected), len(reference.classes.embedding_means))
    if rarity is None and not reference.classes.rarity.any():  # an older schema, which knows none
        rarity = np.zeros(shape, np.float32)
    if output.components is None or rarity is None or rarity.shape != shape:
        msg = (
            "The bundle has a reference for rejection, but its encoder does not give the components and the rarity "
            "that are measured by it. Get the bundle again."
        )
        raise BundleIntegrityError(msg)
    has_counts = n_detected > 0
    types = output.log_type_posterior
    classes = types if has_types(types) else output.log_posterior
    spaces = Spaces(output.embedding, output.components, rarity, classes)
    # An encoder may make anything of a cell without counts.
    spaces = Spaces(*(np.where(has_counts[:, None], space, np.float32(0)) for space in spaces))
    strangeness = compute_strangeness(spaces, n_detected, reference)
    return np.where(has_counts, strangeness, np.nan).astype(np.float32)


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
        "components": output.components,
        "rarity": output.rarity,
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
