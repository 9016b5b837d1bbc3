from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from saddlescape.errors import InputError
from saddlescape.losses import FocalLoss

Z = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 0, 1, 2])
W = torch.tensor([0.3, 0.9, 1.8], dtype=torch.float64)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("weighted_probability", [False, True])
def test_by_hand(gamma: float, weighted_probability: bool) -> None:
    expected = []
    for z, y in zip(Z.tolist(), Y.tolist(), strict=True):
        ce = math.log(sum(math.exp(v) for v in z)) - z[y]
        w = W[y].item()
        p = math.exp(-(w * ce if weighted_probability else ce))
        expected.append(w * (1 - p) ** gamma * ce)
    loss = FocalLoss(gamma, W, weighted_probability=weighted_probability, reduction="none")
    np.testing.assert_allclose(loss(Z, Y).numpy(), expected, rtol=1e-10, atol=1e-10)
    loss = FocalLoss(gamma, W, weighted_probability=weighted_probability)
    assert loss(Z, Y).item() == pytest.approx(np.mean(expected), rel=1e-12)


def test_weighted_probability_without_weights_is_the_usual_loss() -> None:
    torch.testing.assert_close(FocalLoss(2.0, weighted_probability=True)(Z, Y), FocalLoss(2.0)(Z, Y))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 1.5, 2.0])
def test_a_certain_prediction_has_finite_derivatives_for_every_gamma(gamma: float) -> None:
    z = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    value = FocalLoss(gamma)(z, torch.tensor([0]))
    (gradient,) = torch.autograd.grad(value, z, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum(), z)
    assert value == 0
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(second).all()


def test_gamma_below_zero() -> None:
    with pytest.raises(InputError, match="gamma is -1"):
        FocalLoss(-1.0)
