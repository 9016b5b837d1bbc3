"""Momentum-SAM against its recurrence written out, and its sign on a saddle."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from family import closure_over
from torch import Tensor

from saddlescape.errors import InputError
from saddlescape.optim import MomentumSAM

CURVATURE = torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64)


def quadratic(optimizer: torch.optim.Optimizer, w: Tensor, seen: list[Tensor] | None = None) -> Callable[[], Tensor]:
    def loss() -> Tensor:
        if seen is not None:
            seen.append(w.detach().clone())
        return (CURVATURE * w**2).sum() / 2

    return closure_over(optimizer, loss)


@pytest.mark.parametrize("form", ["closure", "two calls"])
def test_ten_steps_equal_the_recurrence(form: str) -> None:
    w = torch.tensor([2.0, 1.0, -1.0], dtype=torch.float64, requires_grad=True)
    optimizer = MomentumSAM(torch.optim.SGD([w], lr=0.1, momentum=0.9, weight_decay=0.01), rho=0.7)
    x, v = w.detach().clone(), torch.zeros(3, dtype=torch.float64)
    for _ in range(10):
        at = x - 0.7 * v / v.norm() if v.norm() > 0 else x
        v = 0.9 * v + CURVATURE * at + 0.01 * x
        expected_loss = (CURVATURE * at**2).sum() / 2
        x = x - 0.1 * v
        if form == "closure":
            loss = optimizer.step(quadratic(optimizer, w))
        else:
            optimizer.ascend()
            loss = quadratic(optimizer, w)()
            optimizer.descend()
        assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-12)
        torch.testing.assert_close(w.detach(), x, rtol=1e-11, atol=1e-12)
    assert optimizer.passes_per_step == 1
    assert optimizer.grad_norm is not None


def test_it_looks_ahead_and_amplifies_negative_curvature() -> None:
    w = torch.tensor([1e-9, 1.0, 1e-9], dtype=torch.float64, requires_grad=True)
    optimizer = MomentumSAM(torch.optim.SGD([w], lr=0.01, momentum=0.9), rho=0.5)
    seen: list[Tensor] = []
    optimizer.step(quadratic(optimizer, w, seen))
    optimizer.step(quadratic(optimizer, w, seen))
    # v points along +-e2 and the loss falls outward: the second pass runs farther out by rho, |g| is larger there.
    home = 1.0 + 0.01
    assert seen[1][1].item() == pytest.approx(home + 0.5, rel=1e-6)
    assert abs(w.grad[1].item()) == pytest.approx(home + 0.5, rel=1e-6)


def test_adam_uses_its_first_moment() -> None:
    w = torch.tensor([2.0, 1.0, -1.0], dtype=torch.float64, requires_grad=True)
    optimizer = MomentumSAM(torch.optim.AdamW([w], lr=0.1), rho=0.5)
    seen: list[Tensor] = []
    optimizer.step(quadratic(optimizer, w, seen))
    m, home = optimizer.state[w]["exp_avg"].clone(), w.detach().clone()
    optimizer.step(quadratic(optimizer, w, seen))
    torch.testing.assert_close(seen[1], home - 0.5 * m / m.norm(), rtol=1e-10, atol=1e-12)


def test_a_base_without_momentum_is_refused() -> None:
    w = torch.ones(3, requires_grad=True)
    with pytest.raises(InputError, match="keeps no momentum"):
        MomentumSAM(torch.optim.SGD([w], lr=0.1))
    with pytest.raises(InputError, match="needs a closure"):
        MomentumSAM(torch.optim.SGD([w], lr=0.1, momentum=0.9)).step()
