"""The smoothed spectral density of saved Lanczos nodes and weights, in NumPy alone."""

from __future__ import annotations

import math

import numpy as np

SHARE = 1 / 400  # bandwidth beside the range shown


def density(values: np.ndarray, weights: np.ndarray, grid: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian-smoothed density on ``grid`` [G] of nodes ``values`` [probes, steps] with weights that sum to 1 a probe.

    The same sum as ``saddlescape.curvature.density``, which needs torch; ``sigma`` is a standard deviation in units of
    the eigenvalues. Returns float64 [G].
    """
    nodes, masses = values.reshape(-1).astype(float), weights.reshape(-1).astype(float) / len(values)
    total = np.zeros(len(grid))
    for start in range(0, len(nodes), 256):
        z = (grid[:, None] - nodes[None, start : start + 256]) / sigma
        total += np.exp(-0.5 * z**2) @ masses[start : start + 256]
    return total / (sigma * math.sqrt(2 * math.pi))


def bandwidth(low: float, high: float) -> float:
    """One bandwidth for all that is shown side by side: 1/400 of the range, which is what a picture resolves."""
    return max(SHARE * (high - low), 1e-12)
