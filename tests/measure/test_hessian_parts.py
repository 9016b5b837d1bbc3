"""The Gauss-Newton part and the rest of a Hessian that is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from saddlescape.curvature import build_operator
from saddlescape.measure.hessian_parts import hessian_parts


class Bowls(nn.Module):
    """Logits whose mean is ``sum h w^2 / 2``: under a loss linear in them the residual part is all, ``diag(h)``."""

    def __init__(self, h: Tensor) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(len(h), dtype=h.dtype))
        self.register_buffer("h", h)

    def forward(self, x: Tensor) -> Tensor:
        return (0.5 * (self.h * self.w**2).sum()).expand(len(x))[:, None]


def test_extremes_of_the_parts_are_good_to_one_percent_or_flagged() -> None:
    """The second eigenvalue lies close by the first: where the value seems settled, it may be between the two."""
    h = torch.cat([torch.tensor([-10.0, -8.9, 8.9, 10.0]), torch.linspace(-4, 4, 400)]).double()
    data = torch.zeros(4, 1).double(), torch.zeros(4, dtype=torch.long)
    whole = build_operator(Bowls(h), lambda z, t: z.mean(), data)
    unsettled = 0
    for seed in range(20):
        vectors = torch.nn.functional.normalize(torch.randn(2, 404, generator=torch.Generator().manual_seed(seed)))
        found = hessian_parts(whole, vectors, tol=1e-3, seed=seed)
        part = found["residual_part"]
        assert part.rounding > 0
        for settled, value, truth in (
            (part.converged_min, part.lambda_min, -10),
            (part.converged_max, part.lambda_max, 10),
        ):
            unsettled += not settled
            assert not settled or value == pytest.approx(truth, rel=0.01)
    assert unsettled <= 4
    assert found["gauss_newton"].lambda_max == 0
    assert found["gauss_newton"].converged
