"""The smoothed density of weighted nodes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from saddlescape.density import density
from saddlescape.errors import InputError


@pytest.mark.parametrize("span", [1e-4, 1.0, 100.0, 1e5])
def test_it_integrates_to_one_at_every_scale(span: float) -> None:
    grid, height = density(np.linspace(-0.1, 1, 30)[None] * span, np.full((1, 30), 1 / 30))
    assert np.trapezoid(height, grid) == pytest.approx(1, abs=1e-9)
    # The bandwidth neither falls between two grid points nor hides the spectrum.
    assert 0.02 * span * 1.1 < grid.max() - grid.min() < 2 * span * 1.1


def test_by_formula() -> None:
    points = np.array([-2.01, 0.0, 8.02])
    height = density([[-2.0, 8.0], [0.0, 0.0]], [[0.25, 0.75], [0.5, 0.5]], grid=points, sigma=0.1)[1]
    truth = sum(w * norm.pdf(points, t, 0.1) for t, w in ((-2, 0.125), (8, 0.375), (0, 0.5)))
    np.testing.assert_allclose(height, truth, rtol=1e-12, atol=1e-300)


@pytest.mark.parametrize(("options", "words"), [({"sigma": -1}, "sigma"), ({"grid": [3.0]}, "at least 2 points")])
def test_what_cannot_be(options: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        density([[1.0]], [[1.0]], **options)  # type: ignore[arg-type]
