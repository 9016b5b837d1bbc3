"""Perturbed gradient descent: the uniform ball, escape from saddles, stopping at minima, resuming."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from family import closure_over
from torch import Tensor, nn

from saddlescape.errors import InputError
from saddlescape.optim import PerturbedGD


def test_kicks_are_uniform_in_the_ball() -> None:
    radius, dim = 0.5, 3
    params = [
        torch.zeros(1, dtype=torch.float64, requires_grad=True),
        torch.zeros(2, dtype=torch.float64, requires_grad=True),
    ]
    optimizer = PerturbedGD(torch.optim.SGD(params, lr=0.0), radius, t_thr=1, seed=3)
    kicks = []
    for _ in range(4000):
        with torch.no_grad():
            for p in params:
                p.zero_()
        optimizer.step()
        kicks.append(torch.cat([p.detach().flatten() for p in params]))
    points = torch.stack(kicks)
    lengths = points.norm(dim=1)
    assert lengths.max() <= radius
    volume = (lengths / radius) ** dim  # uniform in [0, 1]
    quantiles = torch.quantile(volume, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    assert quantiles.tolist() == pytest.approx([0.25, 0.5, 0.75], abs=0.03)
    covariance = points.T @ points / len(points)  # of the ball: r^2 / (d + 2) on the diagonal
    expected = torch.eye(dim, dtype=torch.float64) * radius**2 / (dim + 2)
    torch.testing.assert_close(covariance, expected, rtol=0, atol=0.004)
    assert points.mean(0).abs().max() < 0.02


def saddle(w: Tensor) -> Tensor:
    """A saddle at 0 with minima at (0, +-1), where the value is -1/4."""
    return w[0] ** 2 / 2 - w[1] ** 2 / 2 + w[1] ** 4 / 4


def test_kicks_leave_a_saddle_at_which_the_base_optimiser_stays() -> None:
    def run(kicked: bool) -> Tensor:
        w = torch.zeros(2, dtype=torch.float64, requires_grad=True)
        base = torch.optim.SGD([w], lr=0.05)
        optimizer = PerturbedGD(base, 1e-2, t_thr=100) if kicked else base
        for _ in range(399):
            optimizer.step(closure_over(optimizer, lambda: saddle(w)))
        return w.detach()

    assert run(kicked=False).tolist() == [0, 0]
    assert run(kicked=True).abs().tolist() == pytest.approx([0, 1], abs=2e-2)  # a minimum


def test_kicks_come_by_the_clock() -> None:
    w = torch.zeros(4, requires_grad=True)
    optimizer = PerturbedGD(torch.optim.SGD([w], lr=0.0), 0.1, t_thr=3)
    moved = []
    for _ in range(9):
        before = w.detach().clone()
        optimizer.step(closure_over(optimizer, lambda: w.sum()))
        moved.append(not torch.equal(w.detach(), before))
    assert moved == [False, False, True] * 3


def test_resume_continues_on_the_same_bits_and_random_numbers_are_untouched() -> None:
    def build(seed: int) -> tuple[nn.Linear, PerturbedGD]:
        torch.manual_seed(seed)
        model = nn.Linear(3, 2)
        base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return model, PerturbedGD(base, 0.1, t_thr=2, seed=4)

    x = torch.randn(8, 3)
    model, optimizer = build(0)

    def run(model: nn.Module, optimizer: PerturbedGD, steps: int) -> None:
        for _ in range(steps):
            optimizer.step(closure_over(optimizer, lambda: (model(x) ** 2).mean()))

    state = torch.get_rng_state()
    run(model, optimizer, 3)
    assert torch.equal(torch.get_rng_state(), state)
    file = io.BytesIO()
    torch.save([model.state_dict(), optimizer.state_dict()], file)
    file.seek(0)
    weights, saved = torch.load(file, weights_only=True)
    other, resumed = build(1)
    other.load_state_dict(weights)
    resumed.load_state_dict(copy.deepcopy(saved))
    run(model, optimizer, 5)
    run(other, resumed, 5)
    assert torch.equal(model.weight, other.weight)
    assert torch.equal(model.bias, other.bias)


def test_bad_input() -> None:
    w = torch.zeros(2, requires_grad=True)
    base = torch.optim.SGD([w], lr=0.1)
    for build, words in (
        (lambda: PerturbedGD(base, -0.1, t_thr=3), "rho must be"),
        (lambda: PerturbedGD(base, 0.1, t_thr=0), "t_thr"),
    ):
        with pytest.raises(InputError, match=words):
            build()
