"""Figures that follow how many of the model's genes a cell shows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def expect(
    values: NDArray[np.float32], n_detected: NDArray[np.int64], log_detected: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Interpolate a figure (m,) of the knots linearly in the logarithm of the detected genes, (N,); flat outside."""
    n_detected = np.asarray(n_detected, dtype=np.int64)
    # One table for all cells: interpolating cell by cell may round in another way in a block of another size.
    whole = np.arange(1, max(int(n_detected.max(initial=1)), 1) + 1)
    table = np.interp(np.log10(whole), log_detected.astype(np.float64), values.astype(np.float64))
    found: NDArray[np.float64] = table[np.maximum(n_detected, 1) - 1]
    return found
