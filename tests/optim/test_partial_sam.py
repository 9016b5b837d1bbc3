"""PartialSAM: which images the ascent sees, the formula on them, and the draw that a checkpoint keeps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saddlescape.optim import SAM, PartialSAM

COUNTS = [200, 50, 8, 3]


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 10), nn.Tanh(), nn.Linear(10, 4)).double()


def batch(seed: int, n: int = 30) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    return x, torch.multinomial(torch.tensor([6.0, 3.0, 1.0, 1.0]), n, True, generator=generator)


def step(optimizer: Any, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
    parts: list[Tensor] = []

    def closure(subset: Tensor | None = None) -> Tensor:
        if subset is None:
            return F.cross_entropy(model(x), y, reduction="none")
        parts.append(subset)
        return F.cross_entropy(model(x[subset]), y[subset], reduction="none")

    return optimizer.step(closure, targets=y), parts


def grad(model: nn.Module, at: list[Tensor], x: Tensor, y: Tensor) -> tuple[list[Tensor], float]:
    leaves = [p.clone().requires_grad_() for p in at]
    names = [name for name, _ in model.named_parameters()]
    logits = torch.func.functional_call(model, dict(zip(names, leaves, strict=True)), (x,))
    loss = sum(-logits[i].log_softmax(0)[y[i]] for i in range(len(y))) / len(y)
    return list(torch.autograd.grad(loss, leaves)), loss.item()


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("class_aware", [True, False])
def test_six_steps_equal_the_formula_on_the_part(seed: int, class_aware: bool) -> None:
    model, rho = net(seed), 0.4
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    optimizer = PartialSAM(base, COUNTS, rho, share=0.4, class_aware=class_aware, seed=seed)
    w = [p.detach().clone() for p in model.parameters()]
    velocity = [torch.zeros_like(p) for p in w]
    for number in range(6):
        x, y = batch(10 * seed + number, n=20 + number)
        value, (part,) = step(optimizer, model, x, y)
        g, _ = grad(model, w, x[part], y[part])
        norm = torch.cat([t.flatten() for t in g]).norm() + 1e-12
        g, loss = grad(model, [p + rho * t / norm for p, t in zip(w, g, strict=True)], x, y)
        velocity = [0.9 * v + t + 1e-2 * p for v, t, p in zip(velocity, g, w, strict=True)]
        w = [p - 0.1 * v for p, v in zip(w, velocity, strict=True)]
        assert value.item() == pytest.approx(loss, rel=1e-11)  # of the whole batch, at the perturbed weights
        assert not value.requires_grad
    for p, expected in zip(model.parameters(), w, strict=True):
        torch.testing.assert_close(p.detach(), expected, rtol=1e-10, atol=1e-11)


def test_the_part_holds_every_tail_image_and_others_up_to_the_share() -> None:
    model = net()
    optimizer = PartialSAM(torch.optim.SGD(model.parameters(), lr=0.0), COUNTS, share=0.3)
    seen = torch.zeros(30)
    many, few = 0, 0
    for number in range(300):
        x, y = batch(number % 7)
        _, (part,) = step(optimizer, model, x, y)
        tail = (y >= 2).nonzero().flatten()
        assert part.dtype == torch.int64
        assert torch.equal(part, part.unique())  # increasing, none twice
        assert set(tail.tolist()) <= set(part.tolist())
        assert len(part) == max(math.ceil(0.3 * 30), len(tail))
        many, few = max(many, len(tail)), few + (len(tail) < 9)
        seen[part] += 1
    assert few > 0  # batches in which others were drawn
    assert (seen > 0).all()  # and all are drawn at some time


def test_the_others_are_drawn_fairly() -> None:
    model = net()
    optimizer = PartialSAM(torch.optim.SGD(model.parameters(), lr=0.0), COUNTS, share=0.25, class_aware=False)
    x, y = batch(0, n=20)
    seen = torch.zeros(20)
    for _ in range(1000):
        seen[step(optimizer, model, x, y)[1][0]] += 1
    assert seen.sum() == 5000
    # Each is drawn 250 times on average, standard deviation sqrt(1000 * 0.25 * 0.75) = 13.7.
    assert (seen - 250).abs().max() < 5 * 13.7
    assert not optimizer.tail.any()


@pytest.mark.parametrize(("n", "share", "expected"), [(1, 0.25, 1), (2, 0.01, 2), (30, 0.01, 2), (5, 0.5, 3)])
def test_small_parts_are_two_images_at_least(n: int, share: float, expected: int) -> None:
    model = net()
    optimizer = PartialSAM(torch.optim.SGD(model.parameters(), lr=0.1), COUNTS, share=share, class_aware=False)
    assert len(step(optimizer, model, *batch(0, n=n))[1][0]) == expected


def test_the_whole_batch_for_a_part_is_sam() -> None:
    x, y = batch(0)
    ours, plain = net(), net()
    partial = PartialSAM(torch.optim.SGD(ours.parameters(), lr=0.1, momentum=0.9), COUNTS, 0.4, share=1.0)
    sam = SAM(torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9), 0.4)

    def closure() -> Tensor:
        sam.zero_grad()
        loss = F.cross_entropy(plain(x), y)
        loss.backward()
        return loss

    for _ in range(4):
        step(partial, ours, x, y)
        sam.step(closure)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_the_draw_has_its_own_generator_and_its_seed() -> None:
    x, y = batch(0)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    parts = []
    for seed in (0, 0, 1):
        model = net()
        torch.set_rng_state(before)
        optimizer = PartialSAM(torch.optim.SGD(model.parameters(), lr=0.1), COUNTS, seed=seed)
        parts.append([step(optimizer, model, x, y)[1][0].tolist() for _ in range(4)])
        assert torch.equal(torch.get_rng_state(), before)
    assert parts[0] == parts[1] != parts[2]
    assert parts[0][0] != parts[0][1]
