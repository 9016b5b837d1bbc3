"""CC-SAM's first stage against its formula, through every way of running the classifier again."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from family import Net, Run, batch, closure_of, net, same_bits, sgd
from torch import Tensor, nn
from torch.nn import functional as F

from saddlescape.optim import ClassConditionalSAM

COUNTS = [200, 50, 8, 1]  # the last one with a single image


def network(seed: int, head: str, norm: bool = False) -> Net:
    if head != "mlp":
        return net(seed, norm, head=head)
    model = net(seed, norm)
    model.head = nn.Sequential(nn.Linear(10, 7), nn.Tanh(), nn.Linear(7, 4, bias=False)).double()
    return model


def slow_gradient(
    model: Net, x: Tensor, y: Tensor, kappa: float, phi: float, soft: Tensor | None = None
) -> list[Tensor]:
    """The formula, class by class and image by image; the moved classifier is a function of new tensors."""
    head = {name: p.detach() for name, p in model.head.named_parameters()}
    total = sum(p.numel() for p in head.values())
    theta_norm = math.sqrt(sum(float((p**2).sum()) for p in head.values()))

    def loss(i: int, logits: Tensor) -> Tensor:
        logs = logits.log_softmax(dim=0)
        return -logs[y[i]] if soft is None else -(soft[i] * logs).sum()

    features = model.features(x)
    deltas: dict[int, dict[str, Tensor]] = {}
    for c in set(y.tolist()):
        leaves = {name: p.clone().requires_grad_() for name, p in head.items()}
        mine = [i for i in range(len(y)) if y[i] == c]
        mean = sum(loss(i, torch.func.functional_call(model.head, leaves, (features[i : i + 1].detach(),))[0])
                   for i in mine) / len(mine)  # fmt: skip
        g = dict(zip(leaves, torch.autograd.grad(mean, list(leaves.values())), strict=True))
        deltas[c] = {}
        for name, t in g.items():
            length = float(t.norm())
            radius = kappa * math.sqrt(theta_norm) / math.sqrt(length) / math.sqrt(2)
            radius /= max(COUNTS[c] - 1, 1) ** 0.25 * total**0.25
            deltas[c][name] = radius * math.sqrt(total) * t / length
    logits = model.head(features)
    plain = sum(loss(i, logits[i]) for i in range(len(y))) / len(y)
    moved = 0
    for i in range(len(y)):
        theta = {name: p + deltas[int(y[i])][name] for name, p in model.head.named_parameters()}
        moved = moved + loss(i, torch.func.functional_call(model.head, theta, (features[i : i + 1],))[0])
    return list(torch.autograd.grad((1 - phi) * plain + phi * moved / len(y), list(model.parameters())))


def step(optimizer: Any, model: Net, x: Tensor, y: Tensor, how: str, soft: Tensor | None = None) -> Tensor:
    run = Run(model, x, y if soft is None else soft)
    return run.step(optimizer) if how == "reclassify" else optimizer.step(run.closure, targets=run.y)


@pytest.mark.parametrize("how", ["reclassify", "closure"])
@pytest.mark.parametrize("head", ["linear", "cosine", "mlp"])
def test_steps_equal_the_formula(how: str, head: str) -> None:
    """A kappa a hundred thousand times the authors', so that the second order shows."""
    model = network(0, head)
    kappa, phi = 0.15, 0.4
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    optimizer = ClassConditionalSAM(base, COUNTS, model.head, kappa=kappa, phi=phi)
    slow = copy.deepcopy(model)
    velocity = [torch.zeros_like(p) for p in slow.parameters()]
    for number in range(4):
        x, y = batch(number, n=11 + number)
        soft = 0.6 * F.one_hot(y, 4).double() + 0.1 if number % 2 else None
        at_w = F.cross_entropy(model.head(model.features(x)), y if soft is None else soft).item()
        assert step(optimizer, model, x, y, how, soft).item() == pytest.approx(at_w, rel=1e-12)
        gradient = slow_gradient(slow, x, y, kappa, phi, soft)
        with torch.no_grad():
            for p, v, g in zip(slow.parameters(), velocity, gradient, strict=True):
                v.mul_(0.9).add_(g + 1e-2 * p)
                p.sub_(0.1 * v)
    for ours, theirs in zip(model.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def test_the_radius_shrinks_with_the_fourth_root_of_the_class_size() -> None:
    model = network(0, "linear")
    x, _ = batch(0, n=1)
    seen: dict[int, Tensor] = {}
    at_home = torch.cat([p.detach().flatten() for p in model.head.parameters()])
    for count in (2, 17, 257):
        optimizer = ClassConditionalSAM(
            torch.optim.SGD(model.parameters(), lr=0.0), [count, 5, 5, 5], model.head, kappa=0.1
        )

        def again(subset: Tensor, count: int = count) -> Tensor:
            seen[count] = torch.cat([p.detach().flatten() for p in model.head.parameters()]) - at_home
            return F.cross_entropy(model.head(model.features(x)), torch.zeros(1, dtype=torch.int64), reduction="none")

        optimizer.step(lambda again=again: again(x), targets=torch.zeros(1, dtype=torch.int64), reclassify=again)
    assert (seen[2].norm() / seen[17].norm()).item() == pytest.approx(2, rel=1e-9)
    assert (seen[2].norm() / seen[257].norm()).item() == pytest.approx(4, rel=1e-9)


def test_one_pass_through_the_backbone_and_only_the_classifier_moves() -> None:
    model = network(1, "cosine", norm=True)
    x, y = batch(1)
    optimizer = ClassConditionalSAM(
        torch.optim.SGD(model.parameters(), lr=0.1), COUNTS, model.head, kappa=0.3, model=model
    )
    forwards, body = [], [p.detach().clone() for p in model.first.parameters()]
    model.first.register_forward_hook(lambda *a: forwards.append(1))
    backwards = []
    model.first.weight.register_post_accumulate_grad_hook(lambda p: backwards.append(1))
    moved = []
    model.head.register_forward_pre_hook(
        lambda *a: moved.append(all(torch.equal(p, q) for p, q in zip(model.first.parameters(), body, strict=True)))
    )
    step(optimizer, model, x, y, "reclassify")
    assert (len(forwards), len(backwards)) == (1, 1)
    assert moved == [True] * (1 + len(set(y.tolist())))
    assert optimizer.passes_per_step == 1


def test_only_tensors_with_a_radius_move_and_a_schedule_sets_kappa() -> None:
    model = network(2, "linear")
    x, y = batch(2)
    base = torch.optim.SGD([
        {"params": [*model.first.parameters(), model.head.bias], "rho": 0.0}, {"params": [model.head.weight]},
    ], lr=0.0)  # fmt: skip
    optimizer = ClassConditionalSAM(base, COUNTS, model.head, kappa=0.1)
    bias, weight = model.head.bias.detach().clone(), model.head.weight.detach().clone()
    lengths: list[float] = []

    def watch(module: nn.Module, args: Any) -> None:
        assert torch.equal(model.head.bias, bias)
        lengths.append((model.head.weight.detach() - weight).norm().item())

    model.head.register_forward_pre_hook(watch)
    step(optimizer, model, x, y, "reclassify")
    first = lengths[1:]
    assert min(first) > 0
    lengths.clear()
    base.param_groups[1]["rho"] = 0.2
    step(optimizer, model, x, y, "reclassify")
    assert lengths[1:] == pytest.approx([2 * length for length in first], rel=1e-9)


def test_forward_by_class_leaves_running_statistics_to_the_first_pass() -> None:
    x, y = batch(4)
    x, y = x.repeat(2, 1), y.repeat(2)  # two images of a class at least, which BatchNorm needs
    model, plain = network(4, "linear", norm=True), network(4, "linear", norm=True)
    optimizer = ClassConditionalSAM(
        torch.optim.SGD(model.parameters(), lr=0.1), COUNTS, model.head, kappa=0.1, model=model
    )
    step(optimizer, model, x, y, "closure")
    plain.features(x)
    for a, b in zip(model.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-16)


def test_without_the_second_term_it_is_the_base_optimiser() -> None:
    """With phi 0; with kappa 0 as every optimiser of the family (test_wrapper.py)."""
    x, y = batch(3)
    ours, plain = network(3, "linear", norm=True), network(3, "linear", norm=True)
    optimizer, base = ClassConditionalSAM(sgd(ours), COUNTS, ours.head, phi=0.0), sgd(plain)
    for _ in range(5):
        step(optimizer, ours, x, y, "reclassify")
        base.step(closure_of(base, plain, x, y))
    assert same_bits([*ours.parameters(), *ours.buffers()], [*plain.parameters(), *plain.buffers()])
