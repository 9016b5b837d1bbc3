"""The course of curvature over a training loop that is not ours."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from saddlescape.curvature import CurvatureTracker


def train(problem, tracker=None, epochs=5):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(9, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.2), nn.Linear(6, 3)).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(epochs):
        model.train()
        optimizer.zero_grad()
        F.cross_entropy(model(problem.inputs), problem.targets).backward()
        optimizer.step()
        if tracker is not None:
            tracker(model, epoch)
    return model


def test_points_equal_the_dense_hessian_and_training_is_not_disturbed(mlp, dense):
    tracker = CurvatureTracker(F.cross_entropy, mlp.data, every=2, tol=1e-6, products=200)
    model = train(mlp, tracker)
    plain = train(mlp)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), plain.state_dict().values(), strict=True))
    assert model.training
    assert [p.epoch for p in tracker.course(1)] == [0, 2, 4]
    model.eval()
    for label in range(3):
        mine = mlp.targets == label
        truth = torch.linalg.eigvalsh(dense(model, mlp.inputs[mine], mlp.targets[mine]))
        last = tracker.course(label)[-1]
        assert last.lambda_min == pytest.approx(float(truth[0]), rel=1e-6)
        assert last.lambda_max == pytest.approx(float(truth[-1]), rel=1e-6)
        assert last.converged


def test_warm_start_costs_less(mlp):
    model = train(mlp)
    tracker = CurvatureTracker(F.cross_entropy, mlp.data, every=1, tol=1e-3)
    cold = tracker(model, 0)
    warm = tracker(model, 1)
    assert sum(p.products for p in warm) < sum(p.products for p in cold)
    for a, b in zip(cold, warm, strict=True):
        assert b.lambda_min == pytest.approx(a.lambda_min, rel=1e-4)


def test_newly_born_negative_direction_is_not_missed():
    class Curved(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(30, dtype=torch.float64))
            self.register_buffer("h", torch.linspace(-1, 5, 30, dtype=torch.float64))

        def forward(self, x):
            return (0.5 * (self.h * self.w**2).sum()).expand(len(x))[:, None]

    model = Curved()
    data = torch.zeros(4, 1, dtype=torch.float64), torch.zeros(4, dtype=torch.long)
    tracker = CurvatureTracker(lambda z, t: z.mean(), data, every=1, tol=1e-6)
    assert tracker(model, 0)[0].lambda_min == pytest.approx(-1)
    model.h[17] = -9.0
    assert tracker(model, 1)[0].lambda_min == pytest.approx(-9)


def test_state_goes_on_to_the_same_bits(mlp):
    model = train(mlp)
    whole = CurvatureTracker(F.cross_entropy, mlp.data, every=1)
    whole(model, 0)
    first = CurvatureTracker(F.cross_entropy, mlp.data, every=1)
    first(model, 0)
    second = CurvatureTracker(F.cross_entropy, mlp.data, every=1)
    second.load_state_dict(first.state_dict())
    assert [p.lambda_min for p in whole(model, 1)] == [p.lambda_min for p in second(model, 1)]
    assert len(second.points) == 6
