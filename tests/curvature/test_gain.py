"""SAM's gain on quadratics, where theory is exact, and against SAM's own gradient elsewhere."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from saddlescape.curvature import rho_threshold, sam_gain

EIGENVALUES = torch.tensor([-0.8, 0.3, 1.0, 2.5], dtype=torch.float64)


class Point(nn.Module):
    """A weight vector; the loss of a sample is 0.5 w'Hw + x'w, so every mini-batch has the same Hessian."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.4, -0.7, 0.2, 0.5], dtype=torch.float64))

    def forward(self, x):
        return (0.5 * self.w @ (EIGENVALUES * self.w) + x @ self.w)[:, None]


def quadratic():
    x = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Point(), lambda z, t: z.mean(), (x, torch.zeros(12, dtype=torch.long))


def test_exact_on_a_quadratic_in_one_batch():
    model, loss, data = quadratic()
    found = sam_gain(model, loss, data, [0.0, 0.5, 2.0, 8.0])
    gradient = EIGENVALUES * model.w.detach() + data[0].mean(0)
    scale = float(gradient.norm())
    factor = 1 + found.rho * -0.8 / scale
    assert found.eigenvalue == pytest.approx(-0.8) and found.converged
    torch.testing.assert_close(found.factor, factor)
    torch.testing.assert_close(found.gain, factor**2)
    torch.testing.assert_close(found.predicted_gain, factor**2)
    torch.testing.assert_close(found.sign, torch.sign(factor))
    torch.testing.assert_close(found.predicted_sign, torch.sign(factor))
    assert found.rho_threshold == pytest.approx(2 * scale / 0.8)


def test_exact_on_a_quadratic_over_mini_batches():
    model, loss, data = quadratic()
    found = sam_gain(model, loss, data, [0.1, 1.0, 5.0, 50.0], batch_size=3)
    assert len(found.gradient_norms) == 4
    torch.testing.assert_close(found.gain, found.predicted_gain)
    edge = sam_gain(model, loss, data, found.rho_threshold, batch_size=3)
    assert float(edge.gain[0]) == pytest.approx(1)
    assert found.gain[-1] > 1 and found.sign[-1] == -1 and found.gain[0] < 1 and found.sign[0] == 1
    assert found.measured_threshold is not None
    high = sam_gain(model, loss, data, [50.0, 100.0], batch_size=3)
    assert high.measured_threshold == 50  # all amplify: from the smallest on, and not from none


def test_equals_sam_run_by_hand(net):
    mine = net.targets == 2
    x, y = net.inputs[mine], net.targets[mine]
    found = sam_gain(net.model, F.cross_entropy, net.data, 0.3, label=2, tol=1e-8)
    params = list(net.model.parameters())
    before = [p.detach().clone() for p in params]
    g = torch.autograd.grad(F.cross_entropy(net.model(x), y), params)
    norm = torch.cat([t.flatten() for t in g]).norm()
    with torch.no_grad():
        for p, t in zip(params, g, strict=True):
            p.add_(t, alpha=0.3 / float(norm))
    perturbed = torch.cat([t.flatten() for t in torch.autograd.grad(F.cross_entropy(net.model(x), y), params)])
    with torch.no_grad():
        for p, old in zip(params, before, strict=True):
            p.copy_(old)
    torch.testing.assert_close(found.gradient_norms[0], norm)
    again = sam_gain(net.model, F.cross_entropy, (x, y), 0.3, vector=perturbed)
    assert float(again.sam_components[0, 0]) == pytest.approx(float(perturbed.norm()), rel=1e-10)


def test_threshold_rule():
    assert rho_threshold(-4.0, 0.1) == pytest.approx(0.05)
    assert rho_threshold(2.0, 1.0) == 0 and rho_threshold(0.0, 1.0) == math.inf


def test_weights_are_left(net):
    before = [p.detach().clone() for p in net.model.parameters()]
    sam_gain(net.model, F.cross_entropy, net.data, [0.1, 1.0], label=1, batch_size=4)
    assert all(torch.equal(a, b) for a, b in zip(before, net.model.parameters(), strict=True))
