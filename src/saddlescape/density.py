"""Smoothed density of weighted nodes, as Lanczos quadrature gives them: one sum for curvature and reports. No torch."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from saddlescape.errors import InputError

GRID_POINTS = 10_000


def density(
    values: ArrayLike, weights: ArrayLike, *, grid: ArrayLike | None = None, sigma: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian-smoothed density of nodes ``values`` [probes, steps] with ``weights`` [probes, steps], 1 a probe.

    ``grid`` [G] defaults to 10,000 points over the nodes and 6 sigma beyond, so that no mass is cut off and the density
    integrates to 1. ``sigma`` is a standard deviation in units of the nodes; by default the reference's
    ``sqrt(1e-5 * max(1, range))``, but held between range/4000 (or the grid could not show it) and range/20 (or it
    would hide the spectrum of a flat loss). Returns (grid, density), float64.

    Deviations from the reference (``density_generate``): the margin of the grid; the clamp; no constant 1e-7 is added.

    Raises:
        InputError: a sigma that is not positive, or a grid that is no line of points.
    """
    values, weights = np.asarray(values, dtype=float), np.asarray(weights, dtype=float)
    low, high = float(values.min()), float(values.max())
    if sigma is not None and not sigma > 0:
        raise InputError(f"sigma must be above 0, not {sigma}")
    sigma = _bandwidth(low, high) if sigma is None else sigma
    points = np.linspace(low - 6 * sigma, high + 6 * sigma, GRID_POINTS) if grid is None else np.asarray(grid, float)
    if points.ndim != 1 or len(points) < 2:
        raise InputError(f"grid must be a line of at least 2 points, not of shape {points.shape}")
    nodes, masses, total = values.reshape(-1), weights.reshape(-1) / len(values), np.zeros(len(points))
    for start in range(0, len(nodes), 256):
        z = (points[:, None] - nodes[None, start : start + 256]) / sigma
        total += np.exp(-0.5 * z**2) @ masses[start : start + 256]
    total /= sigma * math.sqrt(2 * math.pi)
    if grid is None:
        total /= ((total[1:] + total[:-1]) / 2 * np.diff(points)).sum()
    return points, total


def _bandwidth(low: float, high: float) -> float:
    span, size = high - low, max(abs(low), abs(high))
    if span <= 1e-12 * size:
        return max(1e-3 * size, 1e-12)
    return min(max(math.sqrt(1e-5 * max(1.0, span)), span / 4000), span / 20)
