"""Each rewrite of a traced graph against the plain graph and against double backward in float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import saddlescape.curvature.linearize as linearize
from saddlescape.curvature import build_operator
from saddlescape.curvature.rewrites import drop_idle, fuse_sums


class Residual(nn.Module):
    """What a residual network is made of, and convolutions of other kinds: ``second`` is the one that varies."""

    def __init__(self, second: nn.Module) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.second = second
        self.norm2, self.last = nn.BatchNorm2d(4), nn.Conv2d(4, 5, 3, stride=2, padding=1)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)))
        y = self.norm2(self.second(x))
        x = F.relu(y + x if y.shape == x.shape else y)
        return self.head(F.softplus(self.last(x)).mean((2, 3)))


SECONDS = {
    "3x3": lambda: nn.Conv2d(4, 4, 3, padding=1, bias=False),
    "bias": lambda: nn.Conv2d(4, 4, 3, padding=1),
    "1x1": lambda: nn.Conv2d(4, 4, 1),
    "5x5 without padding": lambda: nn.Conv2d(4, 4, 5),
    "uneven": lambda: nn.Conv2d(4, 4, (3, 5), padding=(1, 2)),
    "much padding": lambda: nn.Conv2d(4, 4, 1, padding=2),
    "dilated": lambda: nn.Conv2d(4, 4, 3, padding=2, dilation=2),
    "stride": lambda: nn.Conv2d(4, 4, 3, stride=2, padding=1),
    "groups": lambda: nn.Conv2d(4, 4, 3, padding=1, groups=2),
    "depthwise": lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4),
    "transposed": lambda: nn.ConvTranspose2d(4, 4, 3, stride=2, padding=1),
}


def settled(second: nn.Module) -> nn.Module:
    """With running statistics that are not those of the start."""
    model = Residual(second)
    with torch.no_grad():
        model.train()(torch.randn(32, 2, 9, 9))
        for norm in (model.norm, model.norm2):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_()
    return model.eval()


@pytest.mark.parametrize("kind", [
    kind if kind in ("3x3", "depthwise") else pytest.param(kind, marks=pytest.mark.slow) for kind in SECONDS
])  # fmt: skip
@pytest.mark.parametrize("operator_kind", ["hessian", "gauss_newton"])
def test_traced_products_are_those_of_double_backward(kind: str, operator_kind: str) -> None:
    from saddlescape.curvature import GaussNewtonOperator, HessianOperator

    torch.manual_seed(0)
    model = settled(SECONDS[kind]())
    x, y = torch.randn(10, 2, 9, 9), torch.arange(10) % 3
    cls: Any = GaussNewtonOperator if operator_kind == "gauss_newton" else HessianOperator
    operator = build_operator(model, F.cross_entropy, (x, y), method="traced", operator=cls)
    v = torch.randn(operator.dim)
    product = operator(v)
    assert not any("traced" in note for note in operator.function.notes)
    exact = build_operator(
        copy.deepcopy(model).double(), F.cross_entropy, (x.double(), y), method="double_backward", operator=cls
    )(v.double())
    assert float((product - exact).norm() / exact.norm()) < 2e-6
    assert torch.equal(product, operator(v))


@pytest.mark.parametrize("kind", [
    "3x3", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("stride", "groups", "uneven")),
])  # fmt: skip
def test_rewrites_leave_the_product_as_it_is(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    model = settled(SECONDS[kind]())
    x, y = torch.randn(10, 2, 9, 9), torch.arange(10) % 3
    counts = {"idle": 0, "sums": 0}

    def counted(name: str, rewrite: Any) -> Any:
        def run(module: Any) -> int:
            done = rewrite(module)
            counts[name] += done
            return done

        return run

    monkeypatch.setattr(linearize, "drop_idle", counted("idle", drop_idle))
    monkeypatch.setattr(linearize, "fuse_sums", counted("sums", fuse_sums))
    rewritten = build_operator(model, F.cross_entropy, (x, y), method="traced")
    v = torch.randn(rewritten.dim)
    product = rewritten(v)
    assert counts["idle"] > 10 and counts["sums"] >= 2
    monkeypatch.setattr(linearize, "drop_idle", lambda module: 0)
    monkeypatch.setattr(linearize, "fuse_sums", lambda module: 0)
    plain = build_operator(model, F.cross_entropy, (x, y), method="traced")(v)
    assert float((product - plain).norm() / plain.norm()) < 1e-6


def test_no_sum_is_fused_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN's convolutions know no float64."""
    torch.manual_seed(2)
    model = settled(SECONDS["3x3"]()).double()
    x, y = torch.randn(6, 2, 9, 9, dtype=torch.float64), torch.arange(6) % 3
    sums: list[int] = []
    monkeypatch.setattr(linearize, "fuse_sums", lambda module: sums.append(fuse_sums(module)))
    traced = build_operator(model, F.cross_entropy, (x, y), method="traced")
    v = torch.randn(traced.dim, dtype=torch.float64)
    plain = build_operator(model, F.cross_entropy, (x, y), method="double_backward")(v)
    torch.testing.assert_close(traced(v), plain, rtol=1e-11, atol=1e-12)
    assert sums and not any(sums)
