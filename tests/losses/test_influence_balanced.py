from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from saddlescape.errors import InputError
from saddlescape.losses import InfluenceBalancedLoss

COUNTS = [100, 30, 5]
GENERATOR = torch.Generator().manual_seed(0)
Z = torch.randn(6, 3, generator=GENERATOR, dtype=torch.float64)
H = torch.randn(6, 4, generator=GENERATOR, dtype=torch.float64)
Y = torch.tensor([0, 1, 2, 0, 1, 2])


def literal(z: torch.Tensor, h: torch.Tensor, alpha: float, epsilon: float, focal: float) -> torch.Tensor:
    """The definition, norm by norm."""
    inverse = 1 / torch.tensor(COUNTS, dtype=torch.float64)
    weight = inverse * 3 / inverse.sum()
    ce = F.cross_entropy(z, Y, reduction="none")
    gradient_norm = (z.softmax(dim=1) - F.one_hot(Y, 3)).abs().sum(dim=1) * h.abs().sum(dim=1)
    return (alpha / (gradient_norm + epsilon) * weight[Y] * ce * (1 - torch.exp(-ce)) ** focal).mean()


@pytest.mark.parametrize(("alpha", "epsilon", "focal"), [(1000.0, 1e-3, 0.0), (10.0, 0.1, 0.0), (1000.0, 1e-3, 1.0)])
def test_the_definition_and_its_gradients(alpha: float, epsilon: float, focal: float) -> None:
    weight = torch.tensor(COUNTS, dtype=torch.float64) ** -1
    loss = InfluenceBalancedLoss(COUNTS, alpha, epsilon, focal, weight=weight * 3 / weight.sum())
    z, h = Z.clone().requires_grad_(), H.clone().requires_grad_()
    actual, expected = loss(z, Y, features=h), literal(z, h, alpha, epsilon, focal)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=0)
    torch.testing.assert_close(
        torch.autograd.grad(actual, (z, h)), torch.autograd.grad(expected, (z, h)), rtol=1e-9, atol=1e-10
    )


def test_default_weights_are_inverse_frequency() -> None:
    torch.testing.assert_close(
        InfluenceBalancedLoss(COUNTS)(Z, Y, H), literal(Z, H, 1000.0, 1e-3, 0.0), rtol=1e-6, atol=0
    )


def test_norms_of_the_features_do_as_well() -> None:
    loss = InfluenceBalancedLoss(COUNTS)
    torch.testing.assert_close(loss(Z, Y, H.abs().sum(dim=1, keepdim=True)), loss(Z, Y, H))


def test_a_zero_feature_vector_is_finite() -> None:
    assert torch.isfinite(InfluenceBalancedLoss(COUNTS)(Z, Y, torch.zeros_like(H)))


def test_missing_or_misshapen_features() -> None:
    loss = InfluenceBalancedLoss(COUNTS)
    with pytest.raises(InputError, match=r"call it with features=model\.features"):
        loss(Z, Y)
    with pytest.raises(InputError, match=r"features must be \[6, d\].*got \[5, 4\]"):
        loss(Z, Y, H[:5])
    with pytest.raises(InputError, match="alpha is 0"):
        InfluenceBalancedLoss(COUNTS, alpha=0)


@pytest.mark.parametrize(("official", "value"), [(False, 673.0), (True, 751.0)])
def test_the_focal_factor_of_the_published_code_is_available(official: bool, value: float) -> None:
    """(1 - exp(-w CE))^gamma in the IB-Loss code's ``ib_focal_loss``, (1 - p)^gamma elsewhere; by hand, beside it."""
    z, h, counts = torch.tensor([[2.0, 0.0]], dtype=torch.float64), torch.tensor([[3.0]]), [19, 1]
    loss = InfluenceBalancedLoss(counts, focal_gamma=1.0, weighted_probability=official)(z, torch.tensor([1]), h)
    assert float(loss) == pytest.approx(value, abs=0.5)
    p, w = float(z.softmax(1)[0, 1]), 1.9  # n^-1 as two weights that sum to 2
    ce = -np.log(p)
    factor = 1 - np.exp(-w * ce) if official else 1 - p
    assert float(loss) == pytest.approx(1000 / (2 * (1 - p) * 3 + 1e-3) * w * ce * factor, rel=1e-6)
