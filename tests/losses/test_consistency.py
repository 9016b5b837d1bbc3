from __future__ import annotations

import pytest
import torch
from torch import Tensor

from saddlescape.errors import InputError
from saddlescape.losses import consistency_loss


def four(rows: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(rows, 4, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(4)]


def test_by_hand() -> None:
    p_g, q_l, p_l, q_g = four()
    expected = []
    for i in range(5):
        one = p_g[i] @ q_l[i] / (p_g[i] @ p_g[i]).sqrt() / (q_l[i] @ q_l[i]).sqrt()
        two = p_l[i] @ q_g[i] / (p_l[i] @ p_l[i]).sqrt() / (q_g[i] @ q_g[i]).sqrt()
        expected.append(-one - two)
    losses = consistency_loss(p_g, q_l, p_l, q_g, reduction="none")
    torch.testing.assert_close(losses, torch.stack(expected))
    torch.testing.assert_close(consistency_loss(p_g, q_l, p_l, q_g), losses.mean())
    torch.testing.assert_close(consistency_loss(p_g, q_l, p_l, q_g, reduction="sum"), losses.sum())
    assert consistency_loss(p_g, 3 * p_g, p_l, 2 * p_l).item() == pytest.approx(-2)
    assert consistency_loss(p_g, -p_g, p_l, -p_l).item() == pytest.approx(2)


def test_no_gradient_reaches_the_projections() -> None:
    p_g, q_l, p_l, q_g = four()
    consistency_loss(p_g, q_l, p_l, q_g).backward()
    assert q_l.grad is None
    assert q_g.grad is None
    for p in (p_g, p_l):
        # The cosine does not change along p.
        torch.testing.assert_close((p.grad * p).sum(dim=1), torch.zeros(5).double(), atol=1e-12, rtol=0)
        assert p.grad.abs().sum(dim=1).min() > 0


def test_zero_vectors_and_half_precision() -> None:
    zero = torch.zeros(2, 3, requires_grad=True)
    value = consistency_loss(zero, torch.randn(2, 3), zero, torch.randn(2, 3))
    value.backward()
    assert value.item() == 0
    assert torch.isfinite(zero.grad).all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = torch.randn(2, 3).bfloat16()
        assert consistency_loss(x, x, x, x).dtype == torch.float32


def test_mistakes_are_one_line() -> None:
    p_g, q_l, p_l, q_g = four()
    with pytest.raises(InputError, match=r"of one shape, got \[5, 4\], \[5, 3\], \[5, 4\], \[5, 4\]"):
        consistency_loss(p_g, q_l[:, :3], p_l, q_g)
    with pytest.raises(InputError, match="reduction is 'max'"):
        consistency_loss(p_g, q_l, p_l, q_g, reduction="max")  # type: ignore[arg-type]
