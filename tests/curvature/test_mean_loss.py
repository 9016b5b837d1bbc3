"""Where every sample is fitted, p - 1 cancels in float32: the loss is computed in float64, the network is not."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saddlescape.curvature import build_operator
from saddlescape.curvature.mean_loss import MeanLoss
from saddlescape.losses import LDAMLoss, VSLoss

CLASSES = 4
WEIGHT = torch.tensor([0.5, 2.0, 1.0, 3.0])
COUNTS = [40, 20, 10, 5]


class HoldsAPlainTensor(nn.Module):
    """Its weight is neither parameter nor buffer, so that nobody can turn it into float64."""

    def __init__(self) -> None:
        super().__init__()
        self.held = WEIGHT

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return F.cross_entropy(z, t, weight=self.held, reduction="sum") / len(t)


LOSSES: dict[str, Callable[..., Any]] = {
    "module": nn.CrossEntropyLoss(),
    "weighted": nn.CrossEntropyLoss(weight=WEIGHT),
    "function": F.cross_entropy,
    "partial": functools.partial(F.cross_entropy, weight=WEIGHT),
    "a mean only": lambda z, t: -z.log_softmax(1)[range(len(t)), t].mean(),
    "ldam": LDAMLoss(COUNTS, scale=1.0),
    "vs": VSLoss(COUNTS),
}


def fitted(dtype: torch.dtype) -> tuple[nn.Module, Tensor, Tensor]:
    """A network whose logits leave the wrong classes 1e-4 and less."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, CLASSES)).double()
    inputs = torch.randn(12, 6, dtype=torch.float64)
    targets = torch.arange(12) % CLASSES
    bias = 10 * F.one_hot(targets, CLASSES).double()
    solved = torch.linalg.lstsq(model[:2](inputs).detach(), bias - model[2].bias.detach()).solution
    with torch.no_grad():
        model[2].weight.copy_(solved.T)
    return model.to(dtype), inputs.to(dtype), targets


@pytest.mark.parametrize("method", ["traced", "double_backward"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_product_in_float32_is_good_to_float32_where_all_is_fitted(name: str, method: str) -> None:
    loss = LOSSES[name]
    model, inputs, targets = fitted(torch.float32)
    # The same weights and images, rounded alike: what is left is the arithmetic.
    exact_model, exact_inputs = fitted(torch.float32)[0].double(), inputs.double()
    exact_loss = copy.deepcopy(loss).double() if isinstance(loss, nn.Module) else loss
    if isinstance(loss, functools.partial):
        exact_loss = functools.partial(F.cross_entropy, weight=WEIGHT.double())
    vector = torch.randn(sum(p.numel() for p in model.parameters()), generator=torch.Generator().manual_seed(1))
    exact = build_operator(exact_model, exact_loss, (exact_inputs, targets), method="double_backward")
    want = exact(vector.double())
    operator = build_operator(
        model, loss, (inputs, targets), batch_size=5 if name != "a mean only" else 12, method=method
    )
    assert float(exact.loss()) < 2e-2 or name in ("ldam", "vs")
    assert operator(vector).dtype == torch.float32
    assert float((operator(vector).double() - want).norm() / want.norm()) < 1e-5


def test_a_loss_that_cannot_be_widened_is_taken_as_it_is() -> None:
    model, inputs, targets = fitted(torch.float32)
    logits = model(inputs)
    held = MeanLoss(HoldsAPlainTensor(), logits, targets)
    assert not held._widens
    total = held.total(logits, targets, torch.full((12,), 1 / 12))
    assert float(total) == pytest.approx(float(HoldsAPlainTensor()(logits, targets)), rel=1e-6)


def test_a_later_change_of_the_loss_s_tensors_is_seen() -> None:
    model, inputs, targets = fitted(torch.float32)
    logits, loss = model(inputs).detach(), nn.CrossEntropyLoss(weight=torch.ones(CLASSES))
    found = MeanLoss(loss, logits, targets)
    assert found._widens
    weights = torch.full((12,), 1 / 12)
    before = found.total(logits, targets, weights)
    loss.weight *= 3  # type: ignore[operator]
    assert float(found.total(logits, targets, weights)) == pytest.approx(3 * float(before), rel=1e-6)
    assert loss.weight.dtype == torch.float32  # type: ignore[union-attr]
