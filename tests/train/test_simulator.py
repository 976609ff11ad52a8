from __future__ import annotations

import numpy as np
import pytest

from scrcl_train.simulator import SimulatorConfig, simulate

CONFIG = SimulatorConfig(n_cells=3000, n_genes=400)


def test_same_seed_same_counts_and_another_seed_others() -> None:
    first, again, other = simulate(seed=3), simulate(seed=3), simulate(seed=4)
    assert (first.X != again.X).nnz == 0
    assert (first.X != other.X).nnz > 0


def test_counts_are_whole_numbers_with_the_depths_asked_for() -> None:
    adata = simulate(CONFIG, seed=0)
    depth = np.asarray(adata.X.sum(axis=1)).ravel()
    first = (adata.obs["batch"] == "batch1").to_numpy()
    assert (adata.X.data == np.round(adata.X.data)).all()
    assert np.median(depth[first]) == pytest.approx(CONFIG.median_depth, rel=0.1)
    assert np.median(depth[~first]) < np.median(depth[first])
    assert np.log(depth[first]).std() == pytest.approx(CONFIG.depth_log_sd, rel=0.2)


def test_counts_are_overdispersed() -> None:
    """Within a type the variance of a well-expressed gene exceeds its mean, as a Poisson's would not."""
    config = SimulatorConfig(n_cells=2000, n_genes=100, depth_log_sd=0.0, n_batches=1, shares=(0.5, 0.5), n_markers=10)
    adata = simulate(config, seed=0)
    counts = adata[adata.obs["cell_type"] == "T naive"].X.toarray()
    mean, variance = counts.mean(axis=0), counts.var(axis=0)
    high = mean > 10
    ratio = (variance[high] - mean[high]) / mean[high] ** 2
    assert np.median(ratio) == pytest.approx(1 / config.dispersion, rel=0.15)


def test_shares_rare_type_and_relatives() -> None:
    adata = simulate(CONFIG, seed=0)
    shares = adata.obs["cell_type"].value_counts(normalize=True)
    assert shares["Platelet"] == pytest.approx(0.02, abs=0.01)
    means = {t: np.asarray(adata[adata.obs["cell_type"] == t].X.mean(axis=0)).ravel() for t in shares.index}
    logs = {t: np.log1p(m) for t, m in means.items()}
    relatives = np.linalg.norm(logs["T naive"] - logs["T memory"])
    strangers = [np.linalg.norm(logs["T naive"] - logs[t]) for t in ("B", "Monocyte", "NK")]
    assert relatives < min(strangers)


def test_shares_that_do_not_sum_to_one_are_refused() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        simulate(SimulatorConfig(shares=(0.5, 0.2)))
