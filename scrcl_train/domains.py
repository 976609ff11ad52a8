"""Domains of tissue: groups of spots that are alike and lie together, found without labels.

Expression is averaged over neighbouring spots; of its components those are kept that vary slowly over the tissue; a
Gaussian mixture with one covariance for all domains is fitted many times, the likeliest fit of each setting is kept,
and the settings' answers are brought to a consensus. See `docs/decisions/0005-spatial-domains.md`.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from scrcl_infer.errors import TrainingError
from scrcl_infer.spatial import Spots, make_spot_graph
from scrcl_train.autocorrelation import centre, compute_autocorrelation
from scrcl_train.components import principal_components
from scrcl_train.features import column_moments, normalise, standardise
from scrcl_train.graphs import smooth
from scrcl_train.populations import Populations, order_by_size

logger = logging.getLogger(__name__)

GENE_SETS = (1000, 2000, 3000)
"""Most autocorrelated genes that make a setting each; all genes where there are fewer."""
STEPS = (2, 3, 5)
"""Smoothing steps over the spot graph."""
FACTORS = (8, 10, 12)
"""Slowest factors that are kept; on tissue with layers the autocorrelation falls below 0.2 after nine or ten."""
N_PCS = 60
"""Components that the factors are sought among."""
RESTARTS = 10
"""Starts of each mixture, of which the likeliest is kept: the likelihood tells good fits from bad ones."""
MAX_VALUE = 10.0
"""Standardised expression is clipped here."""
MAX_FITTED = 10_000
"""Spots that a mixture is fitted on where there are more; all get their domain from it."""
CHOICES = (3, 12)
"""Numbers of domains that are chosen among when none is asked for; any settings agree on two."""
STABLE = 0.95
"""A number of domains is stable when its settings agree so well, as a share of the best agreement of any number."""


@dataclass(frozen=True)
class Domains:
    """The domains of the training spots."""

    populations: Populations
    embedding: NDArray[np.float32]
    """(n, D) smoothed factors that the domains are groups of."""


def find_domains(
    counts: sp.csr_matrix,
    library_size: NDArray[np.floating],
    spots: Spots,
    *,
    n_neighbors: int,
    n_domains: int | None = None,
    seed: int = 0,
) -> Domains:
    """Group the spots of one or several sections into domains; the same seed gives the same domains.

    Parameters
    ----------
    counts
        (n, g) raw counts of the genes to use.
    library_size
        (n,) total counts over all genes.
    spots
        Where the n spots lie. Sections are centred one by one, and share their domains.
    n_neighbors
        Nearest spots that a spot is averaged with.
    n_domains
        K; None takes the largest number on which the settings still agree.

    Raises
    ------
    TrainingError
        K is below 1 or above the number of spots.
    """
    n_spots = counts.shape[0]
    if n_domains is not None and not 1 <= n_domains <= n_spots:
        msg = f"{n_domains} domains were asked for; with {n_spots} spots there must be 1 to {n_spots}."
        raise TrainingError(msg)
    graph = make_spot_graph(spots, n_neighbors=n_neighbors)
    views = make_domain_views(counts, library_size, graph, spots.section)
    rng = np.random.default_rng(seed)
    fitted = rng.permutation(n_spots)[:MAX_FITTED] if n_spots > MAX_FITTED else np.arange(n_spots)
    wanted = _choose_number(views, fitted, seed) if n_domains is None else n_domains
    labels = agree([fit_mixture(view, wanted, fitted, seed=seed) for view in views])
    return Domains(order_by_size(labels, chosen=n_domains is None), views[-1].astype(np.float32))


def make_domain_views(
    counts: sp.csr_matrix, library_size: NDArray[np.floating], graph: sp.csr_matrix, section: NDArray[np.int64]
) -> list[NDArray[np.floating]]:
    """Make one view (n, factors) for each gene set, depth of smoothing and number of factors.

    The last view has most genes, most steps and most factors. Arguments as in `find_domains`, and the spot graph.
    """
    log = normalise(counts, np.reshape(library_size, -1))
    mean, sd = column_moments(log)
    scaled = centre(standardise(log, mean, sd, max_value=MAX_VALUE), section)
    order = np.argsort(-compute_autocorrelation(scaled, graph), kind="stable")
    views: list[NDArray[np.floating]] = []
    for n_genes in sorted({min(size, len(order)) for size in GENE_SETS}):
        pcs, _ = principal_components(scaled[:, order[:n_genes]], N_PCS)
        wide = pcs.astype(np.float64)
        factors = slow_factors(wide, graph)
        for steps in STEPS:
            widths = sorted({min(n, factors.shape[1]) for n in FACTORS})
            views += [smooth(keep_metric(wide, factors[:, :width]), graph, steps=steps) for width in widths]
    return views


def slow_factors(pcs: NDArray[np.float64], graph: sp.csr_matrix) -> NDArray[np.float64]:
    r"""Order the combinations of components by how slowly they vary over the tissue.

    The generalised eigenvectors of :math:`P^T W P` and :math:`P^T P`, W the row-normalised graph: each factor has the
    highest autocorrelation that is uncorrelated with those before it (Switzer and Green 1984; Wartenberg 1985).

    Parameters
    ----------
    pcs
        (n, p) centred, uncorrelated columns.

    Returns
    -------
    ndarray
        (n, q) factors of unit variance, slowest first; q is p less the columns that do not vary.
    """
    spread = pcs.std(axis=0)
    white = pcs[:, spread > 1e-6 * max(float(spread.max(initial=0.0)), 1e-12)]
    white = white / white.std(axis=0)
    degrees = np.maximum(np.asarray(graph.sum(axis=1), dtype=np.float64).reshape(-1, 1), 1.0)
    shared = white.T @ ((graph.astype(np.float64) @ white) / degrees)
    _, vectors = np.linalg.eigh(shared + shared.T)
    slowest = vectors[:, ::-1]
    signs = np.sign(slowest[np.abs(slowest).argmax(axis=0), np.arange(slowest.shape[1])])
    factors: NDArray[np.float64] = white @ (slowest * signs)
    return factors


def keep_metric(pcs: NDArray[np.float64], factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the part of the components (n, p) that the factors (n, q) span, as (n, q) uncorrelated columns.

    A mixture with one covariance is blind to the scales of its columns, but its starts are not: factors of unit
    variance start it badly, distances between spots as the components have them start it well.
    """
    span = factors - factors.mean(axis=0)
    onto, *_ = np.linalg.lstsq(span, pcs, rcond=None)  # (q, p)
    rotation, sizes, _ = np.linalg.svd(onto, full_matrices=False)
    kept: NDArray[np.float64] = span @ (rotation * sizes)
    return kept


def fit_mixture(
    view: NDArray[np.floating], n_domains: int, fitted: NDArray[np.int64], *, seed: int, restarts: int = RESTARTS
) -> NDArray[np.int64]:
    """Return (n,) components of the likeliest of some Gaussian mixtures with one covariance, fitted on some rows."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(n_domains, covariance_type="tied", n_init=restarts, random_state=seed)
    with warnings.catch_warnings():
        # A start that is cut off after 100 rounds loses against the others; fewer distinct spots than domains is seen.
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels: NDArray[np.int64] = mixture.fit(view[fitted]).predict(view).astype(np.int64)
    return labels


def agree(answers: list[NDArray[np.int64]], *, seed: int = 0) -> NDArray[np.int64]:
    """Return the consensus (n,) of several groupings into as many groups as the first has.

    K-means on what groups each spot is in: spots that most answers put together stay together.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    n_groups = len(np.unique(answers[0]))
    members = np.concatenate([np.eye(int(labels.max()) + 1)[labels] for labels in answers], axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found: NDArray[np.int64] = KMeans(n_groups, n_init=10, random_state=seed).fit_predict(members).astype(np.int64)
    return found


def _choose_number(views: list[NDArray[np.floating]], fitted: NDArray[np.int64], seed: int) -> int:
    """Choose the largest number of domains on which a handful of settings agree nearly as well as on any number."""
    from itertools import combinations

    from sklearn.metrics import adjusted_rand_score

    shown = views[:: max(1, len(views) // 6)]
    low, high = CHOICES
    agreement = {}
    for number in range(low, min(high, len(fitted) - 1) + 1):
        answers = [fit_mixture(view, number, fitted, seed=seed, restarts=RESTARTS // 2)[fitted] for view in shown]
        agreement[number] = float(np.mean([adjusted_rand_score(a, b) for a, b in combinations(answers, 2)] or [1.0]))
    logger.debug("agreement by number of domains: %s", agreement)
    best = max(agreement.values(), default=1.0)
    return max((number for number, value in agreement.items() if value >= STABLE * best), default=1)
