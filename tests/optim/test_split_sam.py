"""ImbSAM, Focal-SAM and SSE-SAM against their formulas, and what is left of them in batches that lack something."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from family import (
    COUNTS,
    RHO,
    SPLIT,
    TAIL,
    Losses,
    Net,
    Run,
    agree,
    batch,
    build,
    climb,
    closure_over,
    functional,
    grad,
    net,
    same_bits,
    sgd,
    sgd_by_hand,
    weights,
)
from torch import Tensor
from torch.nn import functional as F

from saddlescape.errors import InputError
from saddlescape.optim import SAM, SSESAM, FocalSAM, ImbSAM, SplitOptimizer, split_sam


def add(*gradients: list[Tensor]) -> list[Tensor]:
    return [torch.stack(parts).sum(0) for parts in zip(*gradients, strict=True)]


def imbsam_gradient(w: list[Tensor], losses: Losses, y: Tensor, rho: float) -> list[Tensor]:
    tail = TAIL[y]

    def head_loss(p: list[Tensor]) -> Tensor:
        return losses(p)[~tail].sum() / len(y)

    def tail_loss(p: list[Tensor]) -> Tensor:
        return 2 * losses(p)[tail].sum() / len(y)

    return add(grad(head_loss, w), grad(tail_loss, climb(w, grad(tail_loss, w), rho)))


def focal_gradient(w: list[Tensor], losses: Losses, y: Tensor, rho: float) -> list[Tensor]:
    k = torch.tensor([0.5 * (1 - COUNTS[int(c)] / sum(COUNTS)) ** 3 for c in y], dtype=torch.float64)

    def sharp(p: list[Tensor]) -> Tensor:
        return sum(k_i * loss for k_i, loss in zip(k, losses(p), strict=True)) / len(y)

    def plain(p: list[Tensor]) -> Tensor:
        return sum((1 - k_i) * loss for k_i, loss in zip(k, losses(p), strict=True)) / len(y)

    return add(grad(plain, w), grad(sharp, climb(w, grad(sharp, w), rho)))


def sse_gradient(w: list[Tensor], losses: Losses, y: Tensor, rho: float, head_rho: float | None = None) -> list[Tensor]:
    tail = TAIL[y]
    parts = []
    for chosen, radius in ((~tail, rho / 2 if head_rho is None else head_rho), (tail, rho)):

        def part(p: list[Tensor], chosen: Tensor = chosen) -> Tensor:
            return losses(p)[chosen].sum() / len(y)

        parts.append(grad(part, climb(w, grad(part, w), radius)))
    return add(*parts)


FORMULAS = {"imbsam": imbsam_gradient, "focal-sam": focal_gradient, "sse-sam": sse_gradient}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_six_steps_equal_the_formula(name: str, seed: int) -> None:
    model = net(seed)
    batches = [batch(10 * seed + number, n=9 + 5 * number) for number in range(6)]
    slow = copy.deepcopy(model)
    expected = sgd_by_hand(
        weights(model),
        6,
        lambda w, number: FORMULAS[name](w, functional(slow, *batches[number]), batches[number][1], RHO[name]),
    )
    optimizer = build(name, model)
    for number, (x, y) in enumerate(batches):
        run = Run(model, x, y)
        at_w = run.closure().mean().item()
        # Mixed labels, whose largest entry is the class, are split like the labels themselves.
        soft = 0.6 * F.one_hot(y, 4).double() + 0.1
        value = run.step(optimizer, targets=soft if number % 2 else y)
        assert value.item() == pytest.approx(at_w, rel=1e-12)
        assert not value.requires_grad
        assert len(run.passes) - 1 <= optimizer.passes_per_step
    agree(model, expected)


# --- batches that lack something --------------------------------------------------------------------------------------


def one_step(kind: Callable[[Net], Any], x: Tensor, y: Tensor, dropout: float = 0.0) -> tuple[list[Tensor], int]:
    model = net(norm=True, dropout=dropout, dtype=x.dtype)
    optimizer = kind(model)
    passes = 0
    torch.manual_seed(3)
    for _ in range(4):
        run = Run(model, x, y)
        run.step(optimizer)
        passes += len(run.passes)
    return [*weights(model), *model.buffers(), torch.get_rng_state()], passes


def plain_steps(x: Tensor, y: Tensor, dropout: float = 0.0) -> list[Tensor]:
    model = net(norm=True, dropout=dropout, dtype=x.dtype)
    base = sgd(model)
    torch.manual_seed(3)
    for _ in range(4):
        base.zero_grad()
        F.cross_entropy(model(x), y, reduction="none").mean().backward()
        base.step()
    return [*weights(model), *model.buffers(), torch.get_rng_state()]


def sam_steps(x: Tensor, y: Tensor, rho: float, factor: float = 1.0) -> list[Tensor]:
    model = net(norm=True, dtype=x.dtype)
    optimizer = SAM(sgd(model), rho=rho, model=model)
    closure = closure_over(optimizer, lambda: factor * F.cross_entropy(model(x), y))
    torch.manual_seed(3)
    for _ in range(4):
        optimizer.step(closure)
    return [*weights(model), *model.buffers(), torch.get_rng_state()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_without_tail_images_is_the_base_optimisers_step(dtype: torch.dtype) -> None:
    x, y = batch(dtype=dtype, classes=[0, 1])
    for kind in (
        lambda model: build("imbsam", model),
        lambda model: SSESAM(sgd(model), COUNTS, 0.3, threshold=20, head_ratio=0, model=model),
    ):
        ours, passes = one_step(kind, x, y, dropout=0.3)
        assert passes == 4
        assert same_bits(ours, plain_steps(x, y, dropout=0.3))


def test_a_batch_of_tail_images_alone_is_sam(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = batch(classes=[2, 3])
    twice, once = sam_steps(x, y, 0.3, factor=2.0), sam_steps(x, y, 0.3)
    for looking in (True, False):
        monkeypatch.setattr(split_sam, "alone", lambda looking=looking: looking)
        for kind, expected in (
            (lambda model: build("imbsam", model), twice),
            (lambda model: ImbSAM(sgd(model), COUNTS, 0.3, tail_weight=1, model=model), once),
            (lambda model: build("sse-sam", model), once),
            (lambda model: FocalSAM(sgd(model), COUNTS, 0.3, lam=1, gamma=0, model=model), once),
        ):
            for a, b in zip(one_step(kind, x, y)[0], expected, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
    # all of it tail, so the part is the whole batch; the running statistics are those of the other pass
    for a, b in zip(one_step(lambda model: build("partial-sam", model), x, y)[0][:6], once[:6], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", SPLIT)
@pytest.mark.parametrize("classes", [[0, 1], [2, 3], [3], [0]])
@pytest.mark.parametrize("n", [1, 5])
def test_every_batch_gives_finite_numbers(name: str, classes: list[int], n: int) -> None:
    model = net()
    x, y = batch(n=n, classes=classes)
    optimizer = build(name, model)
    before = weights(model)
    for _ in range(3):
        assert torch.isfinite(Run(model, x, y).step(optimizer))
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert not same_bits(before, weights(model))


@pytest.mark.parametrize("name", ["imbsam", "focal-sam", "sse-sam"])
@pytest.mark.parametrize("classes", [[0, 1], [2, 3], [0, 1, 2, 3]])
def test_where_nothing_is_looked_at_the_weights_are_the_same(
    name: str, classes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on an accelerator and with other ranks: every pass is made, an empty part moves nothing."""
    x, y = batch(classes=classes)
    looked, _ = one_step(lambda model: build(name, model), x, y)
    monkeypatch.setattr(split_sam, "alone", lambda: False)
    blind, passes = one_step(lambda model: build(name, model), x, y)
    assert passes == 4 * build(name, net()).passes_per_step
    for a, b in zip(looked, blind, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


# --- nothing to climb -------------------------------------------------------------------------------------------------


def test_the_base_class_alone_is_the_base_optimiser() -> None:
    x, y = batch()
    ours, _ = one_step(lambda model: SplitOptimizer(sgd(model), COUNTS, 0.5, model=model), x, y, dropout=0.3)
    assert same_bits(ours, plain_steps(x, y, dropout=0.3))


def test_a_stranger_s_gradient_is_one_line() -> None:
    for name in ("imbsam", "focal-sam", "sse-sam", "partial-sam"):
        with pytest.raises(InputError, match="no parameter of the optimiser has a gradient"):
            Run(net(5), *batch()).step(build(name, net()))


# --- SSE-SAM: the head climbs until a share of the steps is made ------------------------------------------------------


def passes_of(optimizer: SSESAM, model: Net, steps: int) -> list[int]:
    passes = []
    for _ in range(steps):
        announced, run = optimizer.passes_per_step, Run(model, *batch())
        run.step(optimizer)
        assert len(run.passes) == announced
        passes.append(announced)
    return passes


@pytest.mark.parametrize(("total", "gamma", "expected"), [
    (10, 0.7, [3] * 7 + [2] * 3), (None, 0.7, [3] * 10), (10, 0.0, [2] * 10), (10, 1.0, [3] * 10),
])  # fmt: skip
def test_the_head_stops_climbing_after_its_share(total: int | None, gamma: float, expected: list[int]) -> None:
    model = net()
    optimizer = build("sse-sam", model, total_steps=total, gamma=gamma)
    assert passes_of(optimizer, model, 10) == expected
    assert optimizer.steps == 10


def test_the_second_stage_of_sse_sam_is_imbsam_without_its_weight() -> None:
    ours, plain = net(), net()
    sse, imb = build("sse-sam", ours, head_ratio=0), build("imbsam", plain, tail_weight=1)
    assert SSESAM(sgd(net()), COUNTS).tail.tolist() == [False, True, True, True]  # fewer than 100 images
    assert sse.tail.tolist() == imb.tail.tolist() == [False, False, True, True]
    for number in range(4):
        Run(ours, *batch(number)).step(sse)
        Run(plain, *batch(number)).step(imb)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-15)


def test_the_stage_is_part_of_the_state() -> None:
    model = net()
    optimizer = build("sse-sam", model, total_steps=4, gamma=0.5)
    assert passes_of(optimizer, model, 3) == [3, 3, 2]
    other = build("sse-sam", net(), total_steps=4, gamma=0.5)
    other.load_state_dict(optimizer.state_dict())
    assert (other.steps, other.passes_per_step) == (3, 2)
