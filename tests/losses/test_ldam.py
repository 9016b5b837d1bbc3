from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from mpmath import mp, mpf
from torch import Tensor

from saddlescape.errors import InputError
from saddlescape.losses import LDAMLoss

CIFAR10 = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]


def cosines(n: int, c: int, seed: int = 0) -> Tensor:
    return torch.rand(n, c, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def by_hand(z: list[float], y: int, margins: list[float], scale: float) -> float:
    shifted = [scale * (v - (margins[y] if j == y else 0.0)) for j, v in enumerate(z)]
    return math.log(sum(math.exp(v) for v in shifted)) - shifted[y]


@pytest.mark.parametrize(("max_margin", "scale"), [(0.5, 30.0), (0.3, 10.0), (0.0, 1.0)])
def test_values_by_hand(max_margin: float, scale: float) -> None:
    z, y = cosines(12, 10), torch.arange(12) % 10
    margins = [max_margin * (50 / n) ** 0.25 for n in CIFAR10]
    expected = [by_hand(z[i].tolist(), int(y[i]), margins, scale) for i in range(12)]
    loss = LDAMLoss(CIFAR10, max_margin, scale, reduction="none")
    np.testing.assert_allclose(loss(z, y).numpy(), expected, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(loss(z, torch.eye(10, dtype=z.dtype)[y]).numpy(), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("scale", [30.0, 300.0])
def test_every_class_at_once_against_fifty_digits(scale: float) -> None:
    """Also where one probability is 1 to the last bit, which is where the closed form could cancel."""
    z = torch.tensor([[1.0, -1, -1, -1], [0.9, 0.9, 0.9, -0.2], [-1, -1, -1, 1], [0.1, 0.2, 0.3, 0.4]]).double()
    loss = LDAMLoss([400, 100, 20, 5], scale=scale)
    actual = loss.class_losses(z)
    with mp.workdps(50):
        for i in range(4):
            for c, n in enumerate((400, 100, 20, 5)):
                margin = mpf(1) / 2 * (mpf(5) / n) ** (mpf(1) / 4)
                terms = [mp.exp(mpf(scale) * (mpf(v) - (margin if j == c else 0))) for j, v in enumerate(z[i].tolist())]
                expected = float(-mp.log(terms[c] / sum(terms)))
                assert actual[i, c].item() == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_evaluation_is_the_plain_argmax_so_a_margin_only_raises_the_loss() -> None:
    z, y = cosines(12, 10), torch.arange(12) % 10
    plain = LDAMLoss(CIFAR10, max_margin=0.0, reduction="none")(z, y)
    assert (LDAMLoss(CIFAR10, reduction="none")(z, y) > plain).all()


def test_warns_once_on_logits_of_a_linear_head() -> None:
    loss = LDAMLoss(CIFAR10)
    with pytest.warns(UserWarning, match=r"a logit is 2\.5 in size: use the cosine head"):
        loss(torch.full((2, 10), -2.5), torch.tensor([0, 1]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loss(torch.full((2, 10), -2.5), torch.tensor([0, 1]))
        LDAMLoss(CIFAR10)(torch.full((2, 10), 1.0005), torch.tensor([0, 1]))


@pytest.mark.parametrize("options", [{"max_margin": -0.1}, {"scale": 0.0}, {"scale": float("nan")}])
def test_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(InputError, match="must be"):
        LDAMLoss(CIFAR10, **options)
