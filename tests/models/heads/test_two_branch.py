"""GLMC's two branches, and the projections of ProCo and BCL."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saddlescape.models import ProjectionHead, PrototypeHead, TwoBranchHead


def features(rows: int = 6, width: int = 64) -> Tensor:
    return torch.randn(rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_two_branches_by_hand() -> None:
    head, h = TwoBranchHead(64, 10).double(), features()
    plain, balanced = head.branches(h)
    torch.testing.assert_close(plain, h @ head.fc.weight.T + head.fc.bias)
    torch.testing.assert_close(balanced, h @ head.fc_cb.weight.T + head.fc_cb.bias)
    for mode in (True, False):
        assert torch.equal(head.train(mode)(h), balanced)
    q = head.project(h)
    torch.testing.assert_close(q, h @ head.projection.weight.T + head.projection.bias)
    torch.testing.assert_close(head.predict(q), q @ head.prediction.weight.T + head.prediction.bias)


def test_widths_of_the_published_networks() -> None:
    for in_features, width in ((64, 128), (256, 128), (512, 256), (2048, 256)):
        head = TwoBranchHead(in_features, 10)
        assert head.project(torch.zeros(2, in_features)).shape == (2, width)
        assert head.prediction.weight.shape == (width, width)
    assert [tuple(p.shape) for p in ProjectionHead(64, 10).parameters()] == [
        *((10, 64), (10,)),
        *((512, 64), (512,), (512,), (512,)),
        *((128, 512), (128,)),
    ]
    assert ProjectionHead(64, 10).projection_dim == 128
    assert ProjectionHead(2048, 10).projection_dim == 1024


def test_each_loss_reaches_its_own_branch() -> None:
    head, h = TwoBranchHead(64, 10).double(), features()
    head(h).sum().backward()
    assert head.fc_cb.weight.grad is not None
    assert all(p.grad is None for part in (head.fc, head.projection, head.prediction) for p in part.parameters())
    head.zero_grad()
    head.predict(head.project(h).detach()).sum().backward()
    assert head.prediction.weight.grad is not None
    assert head.projection.weight.grad is None


def test_projection_by_hand() -> None:
    torch.manual_seed(0)
    head, h = ProjectionHead(64, 10).double(), features()
    first, norm, _, last = head.projection
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2)
        norm.bias.normal_()
    hidden = h @ first.weight.T + first.bias
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt() * norm.weight + norm.bias
    out = hidden.clamp(min=0) @ last.weight.T + last.bias
    projected = head.project(h)
    torch.testing.assert_close(projected, out / (out**2).sum(dim=1, keepdim=True).sqrt(), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(head(h), h @ head.linear.weight.T + head.linear.bias)


def test_prototypes_are_unit_points_and_train_the_classifier_too() -> None:
    head = PrototypeHead(64, 10).double()
    prototypes = head.prototypes()
    assert prototypes.shape == (10, 128)
    torch.testing.assert_close(prototypes.norm(dim=1), torch.ones(10).double())
    prototypes[:, 0].sum().backward()
    assert head.linear.weight.grad.abs().max() > 0
    assert head.prototype[0].weight.grad.abs().max() > 0
    assert head.linear.bias.grad is None
    assert head.projection[0].weight.grad is None


def test_derivatives() -> None:
    torch.manual_seed(0)
    head = PrototypeHead(4, 3).double().eval()
    # A ReLU at its kink has no derivative; these features are well away from all of them.
    h = features(2, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda h: head.project(h)[:, :4], (h,))
    assert torch.autograd.gradgradcheck(lambda h: head.project(h)[:, :4], (h,))
    assert isinstance(head.linear, nn.Linear)
