"""LWS, both forms of DisAlign, tau-normalisation: the formulas written out, and what each takes over from before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from saddlescape.errors import InputError
from saddlescape.models import (
    CosineHead,
    DisAlignCvpodsHead,
    DisAlignHead,
    ProjectionHead,
    ScaledHead,
    TauNormalizedHead,
    TwoBranchHead,
    linear_map,
    tau_normalized,
)

Build = Callable[[int, int], nn.Module]
BUILDERS: list[Build] = [ScaledHead, DisAlignHead, DisAlignCvpodsHead, TauNormalizedHead, TwoBranchHead, ProjectionHead]


def randomized(head: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in head.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    return head.double().eval()


def features(rows: int = 5) -> Tensor:
    return torch.randn(rows, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def trained_linear() -> nn.Linear:
    torch.manual_seed(5)
    return nn.Linear(3, 4).double()


def names(head: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in head.named_parameters()}


def test_scaled_head_by_hand() -> None:
    head, h = randomized(ScaledHead(3, 4)), features()
    assert names(head) == {"linear.weight": (4, 3), "linear.bias": (4,), "scale": (4,)}
    z = head(h)
    for i in range(5):
        for c in range(4):
            own = sum(head.linear.weight[c, k] * h[i, k] for k in range(3)) + head.linear.bias[c]
            torch.testing.assert_close(z[i, c], head.scale[c] * own, rtol=1e-12, atol=1e-12)
    assert torch.equal(ScaledHead(3, 4).scale, torch.ones(4))


@pytest.mark.parametrize("build", [DisAlignHead, DisAlignCvpodsHead])
def test_disalign_by_hand(build: Build) -> None:
    head, h = randomized(build(3, 4)), features()
    shapes = {"linear.weight": (4, 3), "linear.bias": (4,), "alpha": (4,), "beta": (4,)}
    assert names(head) == shapes | {"confidence.weight": (1, 3), "confidence.bias": (1,)}
    out = head(h)
    for i in range(5):
        sigma = 1 / (1 + torch.exp(-(head.confidence.weight[0] @ h[i] + head.confidence.bias[0])))
        z = head.linear.weight @ h[i] + head.linear.bias
        if build is DisAlignHead:
            expected = sigma * (head.alpha * z + head.beta) + (1 - sigma) * z
        else:
            expected = (1 + sigma * head.alpha) * z + sigma * head.beta
        torch.testing.assert_close(out[i], expected, rtol=1e-12, atol=1e-12)


def test_the_two_forms_of_disalign_are_one_apart_in_alpha() -> None:
    paper, code = randomized(DisAlignHead(3, 4)), randomized(DisAlignCvpodsHead(3, 4))
    code.load_state_dict(paper.state_dict())
    assert not torch.allclose(paper(features()), code(features()))
    with torch.no_grad():
        code.alpha.sub_(1)
    torch.testing.assert_close(code(features()), paper(features()), rtol=1e-12, atol=1e-12)


def test_where_disalign_starts() -> None:
    h, linear = features(), trained_linear()
    paper, code = DisAlignHead(3, 4).double(), DisAlignCvpodsHead(3, 4).double()
    paper.adopt(linear)
    code.adopt(linear)
    assert torch.equal(paper(h), linear(h))
    assert torch.equal(code.confidence.weight, torch.full((1, 3), 0.1).double())
    sigma = (0.1 * h.sum(dim=1, keepdim=True) + code.confidence.bias).sigmoid()
    torch.testing.assert_close(code(h), (1 + sigma) * linear(h), rtol=1e-6, atol=1e-6)
    assert torch.equal(code(h).argmax(dim=1), linear(h).argmax(dim=1))


def test_disalign_trains_its_own_parameters_over_a_frozen_classifier() -> None:
    head = DisAlignHead(3, 4).double()
    head.adopt(trained_linear())
    head.linear.requires_grad_(False)
    h = features().requires_grad_()
    nn.functional.cross_entropy(head(h), torch.tensor([0, 1, 2, 3, 3])).backward()
    assert head.linear.weight.grad is None
    for name in ("alpha", "beta"):
        assert head.get_parameter(name).grad.abs().min() > 0
    # At the identity sigma multiplies nothing, so its layer starts to learn only once alpha or beta has moved.
    assert head.confidence.weight.grad.abs().max() == 0
    assert h.grad.abs().min() > 0


@pytest.mark.parametrize("tau", [0.0, 0.3, 1.0, 2.0])
def test_tau_normalisation_by_hand(tau: float) -> None:
    weight = trained_linear().weight.detach()
    result = tau_normalized(weight, tau)
    for c in range(4):
        length = sum(float(w) ** 2 for w in weight[c]) ** 0.5
        torch.testing.assert_close(result[c], weight[c] / length**tau, rtol=1e-12, atol=0)
    if tau == 0:
        assert torch.equal(result, weight)


def test_tau_of_a_row_of_zeros() -> None:
    weight = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    result = tau_normalized(weight, 1.0)
    assert torch.equal(result.detach(), torch.tensor([[0.0, 0.0], [0.6, 0.8]]))
    result.sum().backward()
    assert torch.isfinite(weight.grad).all()


def test_tau_can_be_changed_again_and_again() -> None:
    head, linear, h = TauNormalizedHead(3, 4).double(), trained_linear(), features()
    head.adopt(linear)
    assert names(head) == {"weight": (4, 3)}
    for tau in (2.0, 0.5, 0.0):
        head.set_tau(tau)
        torch.testing.assert_close(head(h), h @ tau_normalized(linear.weight, tau).T, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(head(h), linear(h) - linear.bias, rtol=1e-12, atol=1e-12)
    head.set_tau(0.5)
    other = TauNormalizedHead(3, 4).double()
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(h), head(h))
    for wrong in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="tau is"):
            head.set_tau(wrong)


@pytest.mark.parametrize("build", [ScaledHead, DisAlignHead, TwoBranchHead, ProjectionHead])
def test_adopting_a_linear_head_leaves_the_logits(build: Build) -> None:
    head, linear, h = build(3, 4).double().eval(), trained_linear(), features()
    head.adopt(linear)
    assert torch.equal(head(h), linear(h))
    with torch.no_grad():  # a copy: training on does not change the head before
        for p in head.parameters():
            p.add_(1.0)
    assert torch.equal(linear.weight, trained_linear().weight)


@pytest.mark.parametrize("before", [ScaledHead, TauNormalizedHead, TwoBranchHead, ProjectionHead])
def test_heads_that_are_linear_maps_can_be_adopted(before: Build) -> None:
    previous, h = randomized(before(3, 4)), features()
    weight, bias = linear_map(previous)
    assert not weight.requires_grad
    torch.testing.assert_close(h @ weight.T + bias, previous(h), rtol=1e-12, atol=1e-12)
    head = ScaledHead(3, 4).double()
    head.adopt(previous)
    torch.testing.assert_close(head(h), previous(h), rtol=1e-12, atol=1e-12)


def test_a_linear_layer_without_bias_can_be_adopted() -> None:
    linear = nn.Linear(3, 4, bias=False).double()
    head = ScaledHead(3, 4).double()
    head.adopt(linear)
    assert torch.equal(head(features()), linear(features()))


@pytest.mark.parametrize("build", BUILDERS)
def test_heads_that_cannot_be_adopted_are_named(build: Build) -> None:
    with pytest.raises(InputError, match="CosineHead is not a linear map"):
        build(3, 4).adopt(CosineHead(3, 4))
    with pytest.raises(InputError, match="DisAlignHead is not a linear map"):
        build(3, 4).adopt(DisAlignHead(3, 4))
    with pytest.raises(InputError, match=r"weights \[4, 3\] .* needs \[5, 3\]"):
        build(3, 5).adopt(nn.Linear(3, 4))
