from __future__ import annotations

import torch
from torch import nn

from saddlescape.models import CosineHead


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
