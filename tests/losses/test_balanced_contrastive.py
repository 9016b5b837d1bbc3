from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from saddlescape.errors import InputError
from saddlescape.losses import BalancedContrastiveLoss

COUNTS = [50, 20, 5, 1]
TARGET = torch.tensor([0, 0, 2, 0, 3, 0])  # none of class 1, one image of classes 2 and 3


def points(views: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(6, views, 5, dtype=torch.float64, generator=generator)
    prototypes = torch.randn(4, 5, dtype=torch.float64, generator=generator)
    return F.normalize(features, dim=2), F.normalize(prototypes, dim=1)


def slow(features: Tensor, target: Tensor, prototypes: Tensor, temperature: float) -> list[float]:
    """Anchor by anchor, class by class, from the definition; one value per image."""
    n, views = features.shape[:2]
    everything = [(int(target[i]), features[i, v], (i, v)) for i in range(n) for v in range(views)]
    everything += [(c, prototypes[c], None) for c in range(len(prototypes))]
    per_image = []
    for i in range(n):
        losses = []
        for v in range(views):
            others = [
                (c, math.exp(float(features[i, v] @ z) / temperature)) for c, z, name in everything if name != (i, v)
            ]
            denominator = 0.0
            for c in range(len(prototypes)):
                own = [e for label, e in others if label == c]
                denominator += sum(own) / len(own)
            positives = [e for label, e in others if label == int(target[i])]
            losses.append(-sum(math.log(e / denominator) for e in positives) / len(positives))
        per_image.append(sum(losses) / views)
    return per_image


@pytest.mark.parametrize("views", [1, 2, 3])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_against_loops(views: int, temperature: float) -> None:
    features, prototypes = points(views)
    loss = BalancedContrastiveLoss(COUNTS, temperature)
    expected = torch.tensor(slow(features, TARGET, prototypes, temperature), dtype=torch.float64)
    torch.testing.assert_close(loss.per_sample(features, TARGET, prototypes), expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(loss(features, TARGET, prototypes), expected.mean())
    if views == 1:
        torch.testing.assert_close(loss(features[:, 0], TARGET, prototypes), expected.mean())


def test_derivatives() -> None:
    features, prototypes = points()
    loss = BalancedContrastiveLoss(COUNTS, 0.5)
    inputs = (features.requires_grad_(), prototypes.requires_grad_())
    assert torch.autograd.gradcheck(lambda f, p: loss(f, TARGET, p), inputs)
    assert torch.autograd.gradgradcheck(lambda f, p: loss(f, TARGET, p), inputs)


def test_a_class_counts_once_however_many_its_images() -> None:
    """Doubling the images of another class leaves an anchor's loss as it was: its mean similarity is the same."""
    prototypes = points()[1]
    loss = BalancedContrastiveLoss(COUNTS, 0.2)
    anchor = F.normalize(torch.ones(1, 2, 5, dtype=torch.float64), dim=2)
    crowd = prototypes[0].expand(8, 2, 5)  # so that the mean over class 0 does not depend on how many there are
    few = loss.per_sample(torch.cat((anchor, crowd[:1])), torch.tensor([2, 0]), prototypes)[0]
    many = loss.per_sample(torch.cat((anchor, crowd)), torch.tensor([2] + [0] * 8), prototypes)[0]
    torch.testing.assert_close(few, many)


def test_the_simplex_is_a_stationary_point_whatever_the_imbalance() -> None:
    """Classes collapsed to the corners of a regular simplex, anchors weighted alike by class: no force but radial.

    Class averaging and complement make it so at any class sizes in the batch; plain supervised contrast has no such
    point.
    """
    corners = F.normalize(torch.eye(4, dtype=torch.float64) - 0.25, dim=1)
    target = torch.tensor([0] * 7 + [1] * 2 + [2, 3])
    share = 1 / torch.bincount(target).double()[target]
    points = corners[target][:, None].expand(-1, 2, -1).clone().requires_grad_()
    prototypes = corners.clone().requires_grad_()
    (share * BalancedContrastiveLoss(COUNTS, 0.3).per_sample(points, target, prototypes)).sum().backward()
    for x in (points, prototypes):
        along = (x.grad * x).sum(dim=-1, keepdim=True) * x
        torch.testing.assert_close(x.grad - along, torch.zeros_like(x), atol=1e-12, rtol=0)


def test_extremes() -> None:
    features, prototypes = points()
    loss = BalancedContrastiveLoss(COUNTS, 1e-4)
    f = features.float().requires_grad_()
    value = loss(f, TARGET, prototypes.float())
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(f.grad).all()
    one = loss(features[:1], TARGET[:1], prototypes)  # a batch of one image
    assert torch.isfinite(one)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert loss(features.bfloat16(), TARGET, prototypes.bfloat16()).dtype == torch.float32


def test_mistakes_are_one_line() -> None:
    features, prototypes = points()
    loss = BalancedContrastiveLoss(COUNTS)
    with pytest.raises(InputError, match=r"\[N, V, d\] and \[4, d\], got \[6, 2, 5\] and \[3, 5\]"):
        loss(features, TARGET, prototypes[:3])
    with pytest.raises(InputError, match="outside 0"):
        loss(features, TARGET + 1, prototypes)
    with pytest.raises(InputError, match="not soft labels"):
        loss(features, torch.full((6, 4), 0.25, dtype=torch.float64), prototypes)
    with pytest.raises(InputError, match="temperature is -1"):
        BalancedContrastiveLoss(COUNTS, -1)
