"""PartialSAM: which images the ascent sees, the formula on them, and the draw that a checkpoint keeps."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from family import COUNTS, Net, Run, agree, batch, climb, functional, grad, net, sgd, sgd_by_hand, weights
from torch import Tensor

from saddlescape.optim import PartialSAM

FEW_TAIL = [0, 0, 0, 0, 0, 1, 1, 2, 3]


def partial(model: Net, rho: float = 0.05, **options: Any) -> PartialSAM:
    return PartialSAM(torch.optim.SGD(model.parameters(), lr=0.1), COUNTS, rho, **options)


def part_of(optimizer: PartialSAM, model: Net, x: Tensor, y: Tensor) -> Tensor:
    """The part of the batch that the ascent of a step saw."""
    run = Run(model, x, y)
    run.step(optimizer)
    part, whole = run.passes
    assert part is not None and whole is None
    return part


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("class_aware", [True, False])
def test_six_steps_equal_the_formula_on_the_part(seed: int, class_aware: bool) -> None:
    model, slow = net(seed), net(seed)
    optimizer = PartialSAM(sgd(model), COUNTS, 0.4, share=0.4, class_aware=class_aware, seed=seed)

    def gradient(w: list[Tensor], number: int) -> list[Tensor]:
        x, y = batch(10 * seed + number, n=20 + number)
        run = Run(model, x, y)
        value = run.step(optimizer)
        part = run.passes[0]
        moved = climb(w, grad(lambda p: functional(slow, x[part], y[part])(p).mean(), w), 0.4)
        losses = functional(slow, x, y)
        # The loss is that of the whole batch, at the perturbed weights.
        assert value.item() == pytest.approx(losses(moved).mean().item(), rel=1e-11)
        assert not value.requires_grad
        return grad(lambda p: losses(p).mean(), moved)

    agree(model, sgd_by_hand(weights(model), 6, gradient))


def test_the_part_holds_every_tail_image_and_others_up_to_the_share() -> None:
    model = net()
    optimizer = partial(model, share=0.3)
    seen = torch.zeros(30)
    many, few = 0, 0
    for number in range(300):
        x, y = batch(number % 7, n=30, classes=FEW_TAIL)
        part = part_of(optimizer, model, x, y)
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
    optimizer = partial(model, share=0.25, class_aware=False)
    x, y = batch(0, n=20)
    seen = torch.zeros(20)
    for _ in range(1000):
        seen[part_of(optimizer, model, x, y)] += 1
    assert seen.sum() == 5000
    # Each is drawn 250 times on average, standard deviation sqrt(1000 * 0.25 * 0.75) = 13.7.
    assert (seen - 250).abs().max() < 5 * 13.7
    assert not optimizer.tail.any()


@pytest.mark.parametrize(("n", "share", "expected"), [(1, 0.25, 1), (2, 0.01, 2), (30, 0.01, 2), (5, 0.5, 3)])
def test_small_parts_are_two_images_at_least(n: int, share: float, expected: int) -> None:
    model = net()
    optimizer = partial(model, share=share, class_aware=False)
    assert len(part_of(optimizer, model, *batch(0, n=n))) == expected


def test_the_draw_has_its_own_generator_and_its_seed() -> None:
    x, y = batch(0, n=30, classes=FEW_TAIL)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    parts = []
    for seed in (0, 0, 1):
        model = net()
        torch.set_rng_state(before)
        optimizer = partial(model, seed=seed)
        parts.append([part_of(optimizer, model, x, y).tolist() for _ in range(4)])
        assert torch.equal(torch.get_rng_state(), before)
    assert parts[0] == parts[1] != parts[2]
    assert parts[0][0] != parts[0][1]
