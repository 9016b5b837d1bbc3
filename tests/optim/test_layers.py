"""SAM-ON: the normalisation layers climb, by their own gradient alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from family import agree, batch, closure_of, sam_gradient, sgd, sgd_by_hand, weights
from torch import Tensor, nn

from saddlescape.errors import InputError
from saddlescape.optim import ASAM, SAM
from saddlescape.optim.layers import is_normalisation, normalisation_parameters


class Net(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.norm = nn.Linear(6, 10), nn.BatchNorm1d(10)
        self.second, self.last_norm = nn.Linear(10, 10), nn.LayerNorm(10)
        self.head = nn.Linear(10, 4)
        for param in (self.norm.weight, self.norm.bias, self.last_norm.weight):
            nn.init.normal_(param)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last_norm(torch.tanh(self.second(torch.tanh(self.norm(self.first(x)))))))


CLIMBING = {"norm.weight", "norm.bias", "last_norm.weight", "last_norm.bias"}


@pytest.mark.parametrize("form", ["closure", "two calls"])
@pytest.mark.parametrize("adaptive", [False, True])
def test_six_steps_equal_the_formula(form: str, adaptive: bool) -> None:
    model, data = Net(), batch()
    climbs = [name in CLIMBING for name, _ in model.named_parameters()]
    gradient = sam_gradient(
        model, *data, 0.4, lambda i, p: (p.abs() if adaptive else torch.ones_like(p)) * climbs[i]
    )
    expected = sgd_by_hand(weights(model), 6, gradient)
    optimizer = SAM(sgd(model), 0.4, adaptive=adaptive, model=model, layers="norm")
    for _ in range(6):
        closure = closure_of(optimizer, model, *data)
        if form == "closure":
            optimizer.step(closure)
        else:
            closure()
            assert optimizer.ascend()
            closure()
            optimizer.descend()
    agree(model, expected)


def test_the_first_pass_computes_no_other_weight_gradients() -> None:
    model = Net()
    model.second.bias.requires_grad_(False)  # frozen by the user, and so it stays
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), 0.3, model=model, layers="norm")
    seen: list[set[str]] = []
    closure = closure_of(optimizer, model, *batch())

    def watched() -> Tensor:
        loss = closure()
        seen.append({name for name, p in model.named_parameters() if p.grad is not None})
        return loss

    optimizer.step(watched)
    trained = {name for name, _ in model.named_parameters()} - {"second.bias"}
    assert seen == [CLIMBING, trained]
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trained

    def broken() -> Tensor:
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        optimizer.step(broken)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trained


def test_radius_zero_is_the_base_and_a_group_of_radius_zero_stays() -> None:
    x, y = batch()
    results = []
    for layers in (None, "norm"):
        model = Net()
        optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        if layers:
            optimizer = SAM(optimizer, 0.0, model=model, layers="norm")
        for _ in range(3):
            optimizer.step(closure_of(optimizer, model, x, y))
        results.append([*model.parameters(), *model.buffers()])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    model = Net()
    groups = [
        {"params": [p for n, p in model.named_parameters() if n != "norm.bias"]},
        {"params": [model.norm.bias], "rho": 0.0},
    ]
    optimizer = SAM(torch.optim.SGD(groups, lr=0.1), 0.3, model=model, layers="norm")
    home = {name: p.detach().clone() for name, p in model.named_parameters()}
    closure_of(optimizer, model, x, y)()
    optimizer.ascend()
    away = {name for name, p in model.named_parameters() if not torch.equal(p.detach(), home[name])}
    assert away == CLIMBING - {"norm.bias"}
    optimizer.restore()


class LlamaRMSNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))


class NormedLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 2))


def test_what_counts_as_normalisation() -> None:
    norms = [nn.BatchNorm2d(3), nn.SyncBatchNorm(3), nn.InstanceNorm2d(3, affine=True), nn.GroupNorm(1, 3),
             nn.LayerNorm(3), nn.RMSNorm(3), LlamaRMSNorm()]  # fmt: skip
    assert all(is_normalisation(module) for module in norms)
    others = [nn.Linear(3, 3), NormedLinear(), nn.Sequential(nn.BatchNorm1d(3)), nn.LocalResponseNorm(2)]
    assert not any(is_normalisation(module) for module in others)
    model = nn.Sequential(nn.Linear(3, 3), norms[0], nn.Sequential(nn.LayerNorm(3), NormedLinear()))
    assert len(normalisation_parameters(model, "SAM")) == 4


def test_bad_input_is_one_line() -> None:
    model = nn.Linear(3, 2)
    base = torch.optim.SGD(model.parameters(), lr=0.1)
    for build, words in (
        (lambda: SAM(base, layers="norm"), "needs model="),
        (lambda: SAM(base, layers="norm", model=model), "Linear has no normalisation layer"),
        (lambda: SAM(base, layers="head", model=model), "must be 'all' or 'norm'"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match=words) as caught:
            build()
        assert "\n" not in str(caught.value)
    assert ASAM(base, scale_biases=True).layers == "all"
