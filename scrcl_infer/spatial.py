"""Sections of tissue: the graph of neighbouring spots, expression averaged over it, and the vote of neighbours.

A spatial bundle's encoder was taught on smoothed expression. A query's spots are smoothed over a graph of their own
coordinates, each section by itself, and handed to the encoder as cells of ten thousand counts each: the encoder's
normalisation gives the smoothed expression back, so that every bundle's encoder takes the same inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scrcl_infer.blocks import RowBlock
from scrcl_infer.errors import InputError

if TYPE_CHECKING:
    import scipy.sparse as sp

    from scrcl_infer.contract import SpatialSpec
    from scrcl_infer.source import Source

COORDINATES = "spatial"
"""Key of the coordinates in `obsm`, as Visium readers write them."""
MIN_SPOTS = 2
"""Fewest spots of a section: one spot alone has no neighbour."""
SECTION_COLUMNS = ("section", "slice", "library_id", "sample")
"""Columns of `obs` that usually tell sections apart."""
MIXED = 0.05
"""Share of spots beside one of another section from which on sections lie among each other, and not side by side."""
OTHER_MODEL = ", or name a model that was not trained with --spatial"
GENES_AT_ONCE = 256
"""Columns that are smoothed at a time; the answer does not depend on it."""


@dataclass(frozen=True)
class Spots:
    """Where the spots of a query lie (n spots)."""

    places: NDArray[np.float64]
    """(n, 2) or (n, 3) coordinates, in any unit."""
    section: NDArray[np.int64]
    """(n,) number of each spot's section."""


def read_spots(source: Source, *, section_key: str | None = None, otherwise: str = OTHER_MODEL) -> Spots:
    """Read the coordinates of all spots and the sections they belong to.

    Parameters
    ----------
    source
        An open input with `obsm['spatial']`.
    section_key
        Column of `obs` that tells sections apart; None takes all spots for one section.
    otherwise
        What else can be done where there are none, for the refusal.

    Raises
    ------
    InputError
        There are no coordinates, some of them are not finite, or a spot has no section.
    """
    keys = source.obsm_keys()
    if COORDINATES not in keys:
        found = f"obsm holds {', '.join(sorted(keys))}" if keys else "obsm is empty"
        msg = (
            f"The coordinates of the spots are needed in obsm['{COORDINATES}'], but {found}. Add an array (spots, 2) "
            f"of that name{otherwise}."
        )
        raise InputError(msg)
    places = np.asarray(source.obsm(COORDINATES), dtype=np.float64)
    if places.ndim != 2 or places.shape[1] not in (2, 3):
        msg = f"obsm['{COORDINATES}'] has shape {places.shape}; expected (spots, 2) or (spots, 3) coordinates."
        raise InputError(msg)
    bad = np.flatnonzero(~np.isfinite(places).all(axis=1))
    if bad.size:
        msg = (
            f"obsm['{COORDINATES}'] holds no finite place for {bad.size} spots, the first is row {bad[0]}. "
            "Leave those spots out."
        )
        raise InputError(msg)
    if section_key is None:
        return Spots(places, np.zeros(len(places), dtype=np.int64))
    names = source.obs_column(section_key)
    missing = np.flatnonzero([name is None or str(name) == "nan" for name in names])
    if missing.size:
        msg = (
            f"obs['{section_key}'] names no section for {missing.size} spots, the first is row {missing[0]}. "
            "Fill it in, or leave those spots out."
        )
        raise InputError(msg)
    _, section = np.unique(np.array([str(name) for name in names], dtype=object), return_inverse=True)
    return Spots(places, section.astype(np.int64))


def doubt_one_section(source: Source, spots: Spots) -> list[str]:
    """Return what to say where all spots were taken for one section and seem to be of several, lying in one place.

    Parameters
    ----------
    source
        The query; columns that usually tell sections apart are looked for in its `obs`.
    spots
        Where its spots lie.
    """
    for key in (key for key in SECTION_COLUMNS if key in source.obs_keys()):
        names = np.array([str(name) for name in source.obs_column(key)], dtype=object)
        if len(set(names)) < MIN_SPOTS:
            continue
        beside = names[find_nearest(spots.places, 1)[:, 0]]
        if (share := float(np.mean(beside != names))) > MIXED:
            return [
                f"All spots were smoothed together as one section, but {share:.0%} of them lie next to a spot of "
                f"another obs['{key}']. If that column tells sections apart, pass --section {key}."
            ]
    return []


def find_nearest(places: NDArray[np.floating], n_neighbors: int) -> NDArray[np.int64]:
    """Return the nearest other spots of each spot, (n, min(n_neighbors, n - 1)), nearest first."""
    from scipy.spatial import cKDTree

    n_spots = len(places)
    n_neighbors = min(n_neighbors, n_spots - 1)
    _, found = cKDTree(places).query(places, k=n_neighbors + 1)
    found = np.asarray(found, dtype=np.int64).reshape(n_spots, n_neighbors + 1)
    own = found == np.arange(n_spots)[:, None]
    # Where other spots lie at the very same place, the spot may be missing from its own list: drop the farthest then.
    own[~own.any(axis=1), -1] = True
    nearest: NDArray[np.int64] = found[~own].reshape(n_spots, n_neighbors)
    return nearest


def make_spot_graph(spots: Spots, *, n_neighbors: int) -> sp.csr_matrix:
    """Join each spot to its nearest spots of the same section, in both directions.

    Parameters
    ----------
    spots
        n spots.
    n_neighbors
        Nearest others of each spot, bounded by the section's size.

    Returns
    -------
    csr_matrix
        (n, n) float32, symmetric, values 1, no loops, no edge between sections. A section's only spot has no edge.
    """
    import scipy.sparse as sp  # loaded here and below, so that bundles without smoothing start without it

    n_spots = len(spots.places)
    rows, columns = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for number in np.unique(spots.section):
        members = np.flatnonzero(spots.section == number)
        if members.size < MIN_SPOTS:
            continue
        nearest = find_nearest(spots.places[members], n_neighbors)
        rows.append(np.repeat(members, nearest.shape[1]))
        columns.append(members[nearest.ravel()])
    joined = (np.concatenate(rows), np.concatenate(columns))
    directed = sp.csr_matrix((np.ones(joined[0].size, np.float32), joined), shape=(n_spots, n_spots))
    graph = sp.csr_matrix(directed.maximum(directed.T))
    graph.sort_indices()
    return graph


def smooth_expression(logged: sp.csr_matrix, graph: sp.csr_matrix, *, n_steps: int) -> NDArray[np.float32]:
    r"""Average over neighbouring spots: :math:`Â^s X` with :math:`Â = D^{-1/2} (A + I) D^{-1/2}`.

    Parameters
    ----------
    logged
        (n, G) log-normalised counts.
    graph
        (n, n) symmetric 0/1 without loops.
    n_steps
        s; 0 leaves the expression as it is.

    Returns
    -------
    ndarray
        (n, G) float32.
    """
    import scipy.sparse as sp

    looped = graph.astype(np.float64) + sp.eye_array(graph.shape[0], format="csr")
    scale = sp.diags_array(1 / np.sqrt(np.asarray(looped.sum(axis=1)).ravel()))
    normalised = sp.csr_matrix(scale @ looped @ scale)
    by_gene = sp.csc_matrix(logged)
    smoothed = np.empty(logged.shape, dtype=np.float32)
    for start in range(0, logged.shape[1], GENES_AT_ONCE):
        columns = slice(start, start + GENES_AT_ONCE)
        part = by_gene[:, columns].toarray().astype(np.float64)
        for _ in range(n_steps):
            part = normalised @ part
        smoothed[:, columns] = part
    return smoothed


def smooth_counts(
    counts: sp.csr_matrix,
    library_size: NDArray[np.floating],
    spots: Spots,
    spec: SpatialSpec,
    *,
    target_sum: float = 10_000.0,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Smooth the expression of sections, and give it as counts that the encoder normalises back to it.

    Spots without counts take no part: they would only dim their neighbours. Training and assigning both come here.

    Parameters
    ----------
    counts
        (n, G) raw counts of the bundle's genes.
    library_size
        (n,) or (n, 1) total counts over all genes.
    spots
        Where the n spots lie.
    spec
        Neighbours and steps.
    target_sum
        Counts per cell that the encoder normalises to.

    Returns
    -------
    counts, library_size
        (n, G) float32, `expm1` of the smoothed log expression, zeros for a spot without counts in these genes;
        (n, 1) float32, `target_sum` throughout.

    Raises
    ------
    InputError
        There are more or fewer places than spots.
    """
    import scipy.sparse as sp

    if len(spots.places) != counts.shape[0]:
        msg = f"There are {counts.shape[0]} spots but {len(spots.places)} places. Give one place per spot."
        raise InputError(msg)
    library = np.reshape(library_size, -1).astype(np.float64)
    used = np.flatnonzero(library > 0)
    logged = sp.csr_matrix(counts[used], dtype=np.float64, copy=True)
    logged.data = np.log1p(logged.data * np.repeat(target_sum / library[used], np.diff(logged.indptr)))
    graph = make_spot_graph(Spots(spots.places[used], spots.section[used]), n_neighbors=spec.n_neighbors)
    smoothed = np.zeros(counts.shape, dtype=np.float32)
    smoothed[used] = np.expm1(smooth_expression(logged, graph, n_steps=spec.n_steps))
    empty = np.asarray(counts.sum(axis=1)).ravel() <= 0
    smoothed[empty] = 0
    return smoothed, np.full((counts.shape[0], 1), target_sum, dtype=np.float32)


def smooth_blocks(
    blocks: Iterable[RowBlock], spots: Spots, spec: SpatialSpec, *, target_sum: float, n_genes: int
) -> Iterator[RowBlock]:
    """Take all blocks in, smooth them together, and yield them again; parameters as for `smooth_counts`."""
    import scipy.sparse as sp

    starts, parts, libraries = [], [sp.csr_matrix(np.empty((0, n_genes), np.float32))], [np.empty((0, 1), np.float32)]
    for block in blocks:
        starts.append(block.start)
        parts.append(sp.csr_matrix(block.counts))
        libraries.append(block.library_size)
    counts, library = sp.vstack(parts, format="csr"), np.concatenate(libraries)
    smoothed, totals = smooth_counts(counts, library, spots, spec, target_sum=target_sum)
    for start, stop in zip(starts, [*starts[1:], len(smoothed)], strict=False):
        yield RowBlock(start, smoothed[start:stop], totals[start:stop])


def vote(labels: NDArray[np.integer], spots: Spots, *, n_voters: int) -> NDArray[np.int64]:
    """Replace each spot's label by the commonest among its nearest spots of the same section.

    The spot itself has no vote; of equally common labels the one with the nearest spot wins (paper's code, 50 voters).

    Parameters
    ----------
    labels
        (n,) non-negative numbers.
    spots
        Where the n spots lie.
    n_voters
        Nearest others of each spot, bounded by the section's size; 0 changes nothing.
    """
    voted = np.asarray(labels, dtype=np.int64).copy()
    for number in np.unique(spots.section) if n_voters else ():
        members = np.flatnonzero(spots.section == number)
        if members.size < MIN_SPOTS:
            continue
        ballots = labels[members[find_nearest(spots.places[members], n_voters)]]  # (m, voters), nearest first
        n_labels, rows = int(ballots.max()) + 1, np.arange(members.size)
        votes = np.zeros((members.size, n_labels))
        nearest = np.zeros_like(votes)
        for rank in reversed(range(ballots.shape[1])):
            votes[rows, ballots[:, rank]] += 1
            nearest[rows, ballots[:, rank]] = 1 - rank / ballots.shape[1]
        voted[members] = (votes + nearest / 2).argmax(axis=1)  # less than one vote: only decides ties
    return voted
