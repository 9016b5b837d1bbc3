"""VS, logit adjustment and balanced softmax: one softmax with per-class factors and offsets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from saddlescape.errors import InputError
from saddlescape.losses import (
    BalancedSoftmaxLoss,
    CrossEntropyLoss,
    LogitAdjustedLoss,
    VSLoss,
    post_hoc_adjust,
)

CIFAR10 = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
Z = torch.randn(10, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2
Y = torch.arange(10)


def softmax_loss(logits: list[float], y: int) -> float:
    return math.log(sum(math.exp(v) for v in logits)) - logits[y]


@pytest.mark.parametrize(("gamma", "tau"), [(0.3, 1.0), (0.15, 1.25), (0.05, 0.75), (0.0, 0.0)])
def test_vs_by_hand(gamma: float, tau: float) -> None:
    total = sum(CIFAR10)
    expected = [
        softmax_loss(
            [v / (5000 / n) ** gamma + tau * math.log(n / total) for v, n in zip(Z[i].tolist(), CIFAR10, strict=True)],
            i,
        )
        for i in range(10)
    ]
    actual = VSLoss(CIFAR10, gamma, tau, reduction="none")(Z, Y)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-10, atol=1e-10)


def test_the_special_cases_meet() -> None:
    expected = LogitAdjustedLoss(CIFAR10)(Z, Y)
    torch.testing.assert_close(VSLoss(CIFAR10, gamma=0.0)(Z, Y), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(BalancedSoftmaxLoss(CIFAR10)(Z, Y), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(LogitAdjustedLoss(CIFAR10, tau=0.0)(Z, Y), CrossEntropyLoss()(Z, Y))
    torch.testing.assert_close(VSLoss([7] * 10, gamma=0.9, tau=2.0)(Z, Y), CrossEntropyLoss()(Z, Y))


def test_balanced_softmax_by_hand() -> None:
    expected = [
        softmax_loss([v + math.log(n) for v, n in zip(Z[i].tolist(), CIFAR10, strict=True)], i) for i in range(10)
    ]
    actual = BalancedSoftmaxLoss(CIFAR10, reduction="none")(Z, Y)
    np.testing.assert_allclose(actual.numpy(), expected, rtol=1e-10, atol=1e-10)


def test_the_reference_form_of_logit_adjustment_with_its_tiny_constant() -> None:
    prior = torch.tensor(CIFAR10, dtype=torch.float64) / sum(CIFAR10)
    reference = torch.nn.functional.cross_entropy(Z + (prior**1.5 + 1e-12).log(), Y)
    torch.testing.assert_close(LogitAdjustedLoss(CIFAR10, tau=1.5)(Z, Y), reference, rtol=1e-8, atol=0)


def test_post_hoc_adjustment_moves_the_decision_by_the_log_prior() -> None:
    logits = torch.zeros(2, 3, 2)
    adjusted = post_hoc_adjust(logits, [90, 10], tau=2.0)
    torch.testing.assert_close(adjusted[1, 2], -2 * torch.tensor([0.9, 0.1]).log())
    assert adjusted.dtype == logits.dtype
    with pytest.raises(InputError, match="logits have 2 columns but class_counts lists 3 classes"):
        post_hoc_adjust(logits, [90, 10, 1])


def test_post_hoc_adjustment_undoes_the_loss() -> None:
    """The loss with prior pi, at logits adjusted for pi, is plain cross-entropy of the raw logits."""
    torch.testing.assert_close(LogitAdjustedLoss(CIFAR10)(post_hoc_adjust(Z, CIFAR10), Y), CrossEntropyLoss()(Z, Y))
