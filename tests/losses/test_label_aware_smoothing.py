from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from saddlescape.errors import InputError
from saddlescape.losses import CrossEntropyLoss, LabelAwareSmoothingLoss, smoothing_curve

CIFAR10 = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
Z = torch.randn(10, 10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.arange(10)


def test_other_curves_by_their_formulas() -> None:
    ratio = [(n - 50) / 4950 for n in CIFAR10]
    for shape, formula in {
        "linear": lambda r: 0.1 + 0.3 * r,
        "convex": lambda r: 0.4 + 0.3 * math.sin(1.5 * math.pi + r * math.pi / 2),
        "exponential": lambda r: 0.1 + 0.3 * r**3,
    }.items():
        curve = smoothing_curve(CIFAR10, 0.4, 0.1, shape, power=3.0)  # type: ignore[arg-type]
        np.testing.assert_allclose(curve.numpy(), [formula(r) for r in ratio], rtol=1e-12, atol=1e-12)
        assert curve[0].item() == pytest.approx(0.4)
        assert curve[-1].item() == pytest.approx(0.1)


@pytest.mark.parametrize("spread", ["all", "others"])
def test_values_by_hand(spread: str) -> None:
    log_p = [[v - math.log(sum(map(math.exp, row))) for v in row] for row in Z.tolist()]
    eps = [0.3 * math.sin(math.pi / 2 * (n - 50) / 4950) for n in CIFAR10]
    expected = []
    for i in range(10):
        if spread == "all":
            rest = -sum(log_p[i]) / 10
        else:
            rest = -sum(v for j, v in enumerate(log_p[i]) if j != i) / 9
        expected.append((1 - eps[i]) * -log_p[i][i] + eps[i] * rest)
    loss = LabelAwareSmoothingLoss(CIFAR10, 0.3, 0.0, spread=spread, reduction="none")  # type: ignore[arg-type]
    np.testing.assert_allclose(loss(Z, Y).numpy(), expected, rtol=1e-10, atol=1e-10)


def test_equal_smoothing_is_torchs_label_smoothing() -> None:
    expected = torch.nn.CrossEntropyLoss(label_smoothing=0.2)(Z, Y)
    torch.testing.assert_close(LabelAwareSmoothingLoss(CIFAR10, 0.2, 0.2)(Z, Y), expected)


def test_balanced_classes_get_the_tails_smoothing() -> None:
    assert smoothing_curve([5, 5, 5], 0.3, 0.1).tolist() == pytest.approx([0.1] * 3)
    torch.testing.assert_close(LabelAwareSmoothingLoss([5] * 10, 0.3, 0.0)(Z, Y), CrossEntropyLoss()(Z, Y))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1.2, 0.0), "smooth_head is 1.2"),
        ((0.3, -0.1), "smooth_tail is -0.1"),
        ((0.3, 0.0, "round"), "must be one of concave, linear, convex, exponential"),
    ],
)
def test_options_out_of_range(arguments: tuple, message: str) -> None:
    with pytest.raises(InputError, match=message):
        LabelAwareSmoothingLoss(CIFAR10, *arguments)


def test_an_unknown_spread() -> None:
    with pytest.raises(InputError, match="spread is 'most'"):
        LabelAwareSmoothingLoss(CIFAR10, 0.3, 0.0, spread="most")  # type: ignore[arg-type]
