"""The reference picture: a two-dimensional map of the teacher's embedding."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from scrcl_train.distil import reduce_embedding

N_NEIGHBORS = 15
N_COMPONENTS = 50
"""Principal components that the neighbours are sought in; more cost time and change nothing."""
N_EPOCHS = 200
"""UMAP's own choice for large data; it takes 500 below 10,000 cells, for a picture that looks the same."""
MIN_DIST = 0.3
"""Room between neighbours; a student cannot place a cell finer than that anyway."""


def compute_map(embedding: NDArray[np.float32], *, seed: int = 0) -> NDArray[np.float32]:
    """Compute a UMAP (cosine) of the cells; the same seed gives the same map.

    Parameters
    ----------
    embedding
        (n, D) of the teacher.

    Returns
    -------
    NDArray
        (n, 2) float32. Started from the first two principal components, so that the far structure is kept; fewer than
        ten cells get those components themselves.
    """
    components = reduce_embedding(embedding, N_COMPONENTS)
    start = _principal_plane(components)
    if len(embedding) < 10:
        return start
    with warnings.catch_warnings():
        # numba and umap speak of threads given up for the seed's sake, and of neighbours in tiny data
        warnings.simplefilter("ignore")
        from umap import UMAP

        model = UMAP(
            n_neighbors=min(N_NEIGHBORS, len(embedding) - 1),
            min_dist=MIN_DIST,
            metric="cosine",
            n_epochs=N_EPOCHS,
            init=start,
            random_state=seed,
            n_jobs=1,
        )
        place = model.fit_transform(components)
    # A cell that UMAP leaves out (no neighbour within reach) is put where the plane has it.
    place = np.where(np.isfinite(place), place, start)
    return place.astype(np.float32)


def _principal_plane(components: NDArray[np.float32]) -> NDArray[np.float32]:
    """First two components, (n, 2), within [-10, 10]; zeros for a component that is not there."""
    plane = np.zeros((len(components), 2), dtype=np.float32)
    plane[:, : min(2, components.shape[1])] = components[:, :2]
    widest = float(np.abs(plane).max(initial=0.0))
    return plane * np.float32(10 / widest if widest > 0 else 0.0)
