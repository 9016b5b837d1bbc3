from __future__ import annotations

import pytest
import torch
from torch import nn

from saddlescape.errors import InputError
from saddlescape.models import CosineHead, LinearHead, make_head


def test_cosines_by_hand() -> None:
    head = CosineHead(3, 4).double()
    h = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z = head(h)
    for i in range(5):
        for j in range(4):
            expected = nn.functional.cosine_similarity(h[i], head.weight[:, j], dim=0)
            torch.testing.assert_close(z[i, j], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(head(7 * h), z, rtol=1e-12, atol=1e-12)
    assert z.abs().max() <= 1 + 1e-12


def test_it_has_one_tensor_of_unit_columns() -> None:
    torch.manual_seed(0)
    head = CosineHead(64, 10)
    assert [(name, tuple(p.shape)) for name, p in head.named_parameters()] == [("weight", (64, 10))]
    torch.testing.assert_close(head.weight.norm(dim=0), torch.ones(10))
    # Uniform in [-1, 1] before scaling: a column's norm is about sqrt(64 / 3), so no entry is beyond about 0.22.
    assert head.weight.abs().max() < 0.25
    assert head.weight.abs().max() > 0.19


def test_autocast_leaves_the_cosines_in_float32() -> None:
    head = CosineHead(64, 10)
    h = torch.randn(8, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z = head(h)
        assert nn.Linear(64, 10)(h).dtype == torch.bfloat16
    assert z.dtype == torch.float32
    assert torch.equal(z, head(h))
    assert head(h.bfloat16()).dtype == torch.float32


def test_a_zero_feature_vector_has_zero_logits_and_finite_derivatives() -> None:
    head = CosineHead(3, 4)
    h = torch.zeros(2, 3, requires_grad=True)
    z = head(h)
    assert torch.equal(z, torch.zeros(2, 4))
    (gradient,) = torch.autograd.grad(z.square().sum(), head.weight, create_graph=True)
    (second,) = torch.autograd.grad(gradient.sum() + 0 * head.weight.sum(), head.weight)
    assert torch.isfinite(gradient).all()
    assert torch.isfinite(second).all()


def test_first_and_second_derivatives() -> None:
    head = CosineHead(3, 4).double()
    h = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)

    def logits(features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(head, {"weight": weight}, (features,))

    assert torch.autograd.gradcheck(logits, (h, head.weight))
    assert torch.autograd.gradgradcheck(logits, (h, head.weight))


def test_make_head() -> None:
    linear = make_head("linear", 5, 3)
    assert isinstance(linear, LinearHead)
    assert linear.bias is not None
    assert isinstance(make_head("cosine", 5, 3), CosineHead)
    with pytest.raises(InputError, match="unknown head 'round'; known are linear, cosine, lws"):
        make_head("round", 5, 3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="num_classes is 1"):
        make_head("linear", 5, 1)
