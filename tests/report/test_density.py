"""The report's own density, held against the one that needs torch."""

from __future__ import annotations

import numpy as np
import torch

from saddlescape.curvature.density import density as by_torch
from saddlescape.report.density import bandwidth, density


def test_it_is_the_density_of_the_curvature_room() -> None:
    rng = np.random.default_rng(0)
    values = np.sort(rng.normal(0, 5, (2, 300)), axis=1)
    weights = rng.random((2, 300))
    weights /= weights.sum(1, keepdims=True)
    grid = np.linspace(-20, 20, 501)
    wanted = by_torch(torch.from_numpy(values), torch.from_numpy(weights), grid=grid, sigma=0.3)[1]
    np.testing.assert_allclose(density(values, weights, grid, 0.3), wanted, rtol=1e-12, atol=1e-300)


def test_it_integrates_to_one_and_stands_where_the_mass_is() -> None:
    grid = np.linspace(-10, 10, 4001)
    found = density(np.array([[-2.0, 3.0]]), np.array([[0.25, 0.75]]), grid, 0.1)
    assert abs(np.trapezoid(found, grid) - 1) < 1e-9
    assert abs(np.trapezoid(found[grid < 0], grid[grid < 0]) - 0.25) < 1e-6


def test_one_bandwidth_for_a_range() -> None:
    assert bandwidth(-10.0, 30.0) == 0.1
    assert bandwidth(1.0, 1.0) > 0
