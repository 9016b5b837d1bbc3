"""Spectral density and share of negative mass by stochastic Lanczos quadrature (Ghorbani et al. 2019, Yao et al. 2020).

For a random unit vector v the squared first components of the eigenvectors of T are the weights, and the Ritz values
the nodes, of the Gauss quadrature of the measure ``mu_v = sum_i (v'u_i)^2 delta(lambda_i)``, whose mean is the
spectral density: moments up to degree 2m - 1 are those of ``mu_v`` exactly.

What is sure about the density is little: its distance from the truth (Wasserstein, beside the range t) needs about 12/t
steps and 4 ln(2n/eta) / ((n+2) t^2) probes (Chen, Trogdon, Ubaru 2021). For 464,154 parameters and 100 steps: 12 % of
the range, and one probe will do: depth is the limit, not probes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saddlescape.curvature.lanczos import Factorization
from saddlescape.errors import InputError

GRID_POINTS = 10_000


def quadrature(factorization: Factorization) -> tuple[Tensor, Tensor]:
    """Nodes (Ritz values, ascending) and weights (sum 1), float64 [steps]."""
    values, vectors = factorization.eigen()
    weights = vectors[0] ** 2
    return values, weights / weights.sum()


def density(
    values: Tensor, weights: Tensor, *, grid: Any = None, sigma: float | str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian-smoothed density of nodes ``values`` [probes, steps] with ``weights`` [probes, steps].

    ``grid`` [G] defaults to 10,000 points over the Ritz values and 6 sigma (at least 0.01) beyond, so that no mass is
    cut off and the density integrates to 1. ``sigma`` (a standard deviation, in units of the eigenvalues): a number;
    ``"reference"`` for the reference's ``sqrt(1e-5 * max(1, range))``; by default the same, but held between
    range/4000 (or the grid could not show it) and range/20 (or it would hide the spectrum of a flat loss). Returns
    (grid, density), float64.

    Deviations from the reference (``density_generate``): the margin of the grid; the clamp; no constant 1e-7 is added.
    """
    values, weights = values.double().cpu(), weights.double().cpu()
    low, high = float(values.min()), float(values.max())
    width = _bandwidth(low, high, sigma)
    if grid is None:
        margin = max(0.01 if sigma == "reference" else 0.0, 6 * width)
        points = torch.linspace(low - margin, high + margin, GRID_POINTS, dtype=torch.float64)
    else:
        points = torch.as_tensor(np.asarray(grid), dtype=torch.float64)
        if points.dim() != 1 or len(points) < 2:
            raise InputError(f"grid must be a line of at least 2 points, not of shape {tuple(points.shape)}")
    total = torch.zeros_like(points)
    nodes, masses = values.reshape(-1), weights.reshape(-1) / len(values)
    for start in range(0, len(nodes), 256):
        z = (points[:, None] - nodes[None, start : start + 256]) / width
        total += torch.exp(-0.5 * z**2) @ masses[start : start + 256]
    total /= width * math.sqrt(2 * math.pi)
    if grid is None:
        total /= torch.trapezoid(total, points)
    return points.numpy(), total.numpy()


def _bandwidth(low: float, high: float, sigma: float | str | None) -> float:
    span = high - low
    if isinstance(sigma, str):
        if sigma != "reference":
            raise InputError(f"sigma must be a number or 'reference', not {sigma!r}")
        return math.sqrt(1e-5 * max(1.0, span))
    if sigma is not None:
        if not sigma > 0:
            raise InputError(f"sigma must be above 0, not {sigma}")
        return float(sigma)
    if span <= 1e-12 * max(abs(low), abs(high)) or span == 0:
        return max(1e-3 * max(abs(low), abs(high)), 1e-12)
    return min(max(math.sqrt(1e-5 * max(1.0, span)), span / 4000), span / 20)


def mass_below(values: Tensor, weights: Tensor, level: float) -> tuple[float, float]:
    """Interval for ``mu_v((-inf, level))`` from one probe's nodes and weights [steps] (Markov-Stieltjes).

    With nodes ascending and t the number of nodes below ``level``: at least the first t - 1 weights and at most the
    first t + 1 lie below. Exact for exact arithmetic; an exhausted factorisation is exact and gives the first t
    weights.
    """
    values, weights = values.double(), weights.double()
    below = int((values < level).sum())
    cumulative = torch.cat([torch.zeros(1, dtype=torch.float64), weights.cumsum(0)])
    low = float(cumulative[max(below - 1, 0)])
    high = float(cumulative[min(below + 1, len(weights))])
    return low, min(high, 1.0)


def negative_mass(
    values: Sequence[Tensor],
    weights: Sequence[Tensor],
    exact: Sequence[bool],
    dim: int,
    *,
    level: float = 0.0,
    confidence: float = 0.99,
) -> tuple[float, float]:
    """Interval for the share of eigenvalues below ``level``: the bracket of each probe, then the luck of the probes.

    ``values``, ``weights``: per probe [steps]; ``exact``: whether its factorisation was exhausted. For a share p of
    ``dim`` eigenvalues, the mean mass over n Gaussian probes is close to Beta(n dim p / 2, n dim (1 - p) / 2); the
    interval holds all shares that do not make what was seen rarer than ``1 - confidence``. Rademacher probes vary
    less: there it is on the safe side. Where all eigenvalues of a probe were met (``steps == dim``), it is the count
    itself.
    """
    lows, highs = [], []
    for theta, weight, whole in zip(values, weights, exact, strict=True):
        if whole and len(theta) == dim:
            share = float((theta < level).sum()) / dim
            return share, share
        if whole:
            low = high = float(weight[theta < level].sum())
        else:
            low, high = mass_below(theta, weight, level)
        lows.append(low)
        highs.append(high)
    n, tail = len(lows), (1 - confidence) / 2
    return _share_bound(sum(lows) / n, n * dim, tail, lower=True), _share_bound(
        sum(highs) / n, n * dim, tail, lower=False
    )


def _share_bound(mass: float, size: int, tail: float, *, lower: bool) -> float:
    """The smallest (largest) share p for which a mass of at least (at most) ``mass`` is not rarer than ``tail``.

    The mass is Beta(size p / 2, size (1 - p) / 2).
    """
    if (lower and mass <= 0) or (not lower and mass >= 1):
        return 0.0 if lower else 1.0
    from scipy.optimize import brentq  # late: SciPy takes 0.2 s to import
    from scipy.special import betainc

    def excess(share: float) -> float:
        below = betainc(size * share / 2, size * (1 - share) / 2, mass) if 0 < share < 1 else float(share <= 0)
        return float(1 - below if lower else below) - tail

    # The chance is monotone in the share. Of very few eigenvalues the mass itself may already be too rare.
    return mass if excess(mass) < 0 else float(brentq(excess, mass, 0.0 if lower else 1.0, xtol=1e-15))
