"""The optimisers that split losses by class: each against its formula, all against what every wrapper promises."""

from __future__ import annotations

import copy
import io
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn import functional as F

from saddlescape.errors import InputError
from saddlescape.optim import (
    SAM,
    SSESAM,
    ClassConditionalSAM,
    FocalSAM,
    ImbSAM,
    MomentumSAM,
    PartialSAM,
    SplitOptimizer,
    split_sam,
)

COUNTS = [200, 50, 8, 3]  # classes 2 and 3 are tail: fewer than 20
NAMES = ["imbsam", "focal-sam", "sse-sam", "cc-sam", "partial-sam"]
PASSES = {"imbsam": 2, "focal-sam": 2, "sse-sam": 3, "cc-sam": 5, "partial-sam": 2}  # CC-SAM's: of the classifier
EACH_PASS = [(name, number) for name in NAMES for number in range(1, PASSES[name] + 1)]
RHO = {"imbsam": 0.3, "focal-sam": 0.3, "sse-sam": 0.3, "cc-sam": 0.2, "partial-sam": 0.3}


class Cosine(nn.Module):
    """A classifier of normalised weights: autograd keeps them in another form than those of a linear one."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, classes))

    def forward(self, x: Tensor) -> Tensor:
        return 5 * F.normalize(x, dim=1) @ F.normalize(self.weight, dim=0)


class Net(nn.Module):
    def __init__(self, seed: int, norm: bool, dropout: float, head: str) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(6, 10)
        self.norm = nn.BatchNorm1d(10) if norm else nn.Identity()
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(10, 4) if head == "linear" else Cosine(10, 4)

    def features(self, x: Tensor) -> Tensor:
        return self.drop(torch.tanh(self.norm(self.first(x))))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def net(
    seed: int = 0, norm: bool = False, dropout: float = 0.0, dtype: torch.dtype = torch.float64, head: str = "linear"
) -> Net:
    return Net(seed, norm, dropout, head).to(dtype)


def batch(seed: int = 1, n: int = 24, dtype: torch.dtype = torch.float64, classes: Sequence[int] = (0, 1, 2, 3)) -> Any:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator, dtype=dtype)
    return x, torch.tensor(classes)[torch.randint(0, len(classes), (n,), generator=generator)]


def sgd(model: nn.Module, lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-2)


def build(name: str, model: Net, rho: Any = None, base: torch.optim.Optimizer | None = None, **kw: Any) -> Any:
    base = sgd(model) if base is None else base
    rho = RHO[name] if rho is None else rho
    if name == "cc-sam":
        return ClassConditionalSAM(base, COUNTS, model.head.parameters(), kappa=rho, phi=0.4, model=model, **kw)
    if name == "partial-sam":
        return PartialSAM(base, COUNTS, rho, share=0.7, model=model, **kw)
    if name == "sse-sam":
        return SSESAM(base, COUNTS, rho, threshold=20, model=model, **kw)
    return {"imbsam": ImbSAM, "focal-sam": FocalSAM}[name](base, COUNTS, rho, model=model, **kw)


class Run:
    """Closure and reclassify of one batch, counting passes; ``fail_at`` raises in that pass."""

    def __init__(self, model: Net, x: Tensor, y: Tensor, fail_at: int = 0, huge_at: int = 0) -> None:
        self.model, self.x, self.y, self.fail_at, self.huge_at = model, x, y, fail_at, huge_at
        self.passes: list[Tensor | None] = []

    def _loss(self, logits: Tensor, y: Tensor) -> Tensor:
        assert torch.is_grad_enabled() or self.huge_at
        losses = F.cross_entropy(logits, y, reduction="none")
        number = len(self.passes)
        if number == self.fail_at:
            raise RuntimeError("stop")
        return losses * 1e38 if number == self.huge_at else losses

    def closure(self, subset: Tensor | None = None) -> Tensor:
        self.passes.append(subset)
        x, y = (self.x, self.y) if subset is None else (self.x[subset], self.y[subset])
        self.kept = self.model.features(x)
        return self._loss(self.model.head(self.kept), y)

    def reclassify(self, subset: Tensor) -> Tensor:
        self.passes.append(subset)
        return self._loss(self.model.head(self.kept[subset]), self.y[subset])

    def step(self, optimizer: Any, targets: Tensor | None = None, **kw: Any) -> Tensor:
        if getattr(optimizer, "reclassifies", False):
            kw["reclassify"] = self.reclassify
        return optimizer.step(self.closure, targets=self.y if targets is None else targets, **kw)


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def same_bits(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


# --- the formulas, slowly ---------------------------------------------------------------------------------------------

Losses = Callable[[list[Tensor]], Tensor]
TAIL = torch.tensor([n < 20 for n in COUNTS])


def grad(loss: Callable[[list[Tensor]], Tensor], at: list[Tensor]) -> list[Tensor]:
    leaves = [p.detach().clone().requires_grad_() for p in at]
    found = torch.autograd.grad(loss(leaves), leaves, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(at, found, strict=True)]


def climb(at: list[Tensor], direction: list[Tensor], rho: float) -> list[Tensor]:
    length = torch.cat([g.flatten() for g in direction]).norm()
    return [p + rho * g / (length + 1e-12) for p, g in zip(at, direction, strict=True)]


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


def sgd_by_hand(
    start: list[Tensor], steps: int, gradient: Callable[[list[Tensor], int], list[Tensor]], lr: float = 0.1
) -> list[Tensor]:
    """SGD with momentum 0.9 and weight decay 0.01 on copies."""
    w = [p.clone() for p in start]
    velocity: list[Tensor] | None = None
    for number in range(steps):
        decayed = [g + 1e-2 * p for g, p in zip(gradient(w, number), w, strict=True)]
        velocity = decayed if velocity is None else [0.9 * v + d for v, d in zip(velocity, decayed, strict=True)]
        w = [p - lr * v for p, v in zip(w, velocity, strict=True)]
    return w


def functional(model: Net, x: Tensor, y: Tensor) -> Losses:
    names = [name for name, _ in model.named_parameters()]

    def losses(params: list[Tensor]) -> Tensor:
        logits = torch.func.functional_call(model, dict(zip(names, params, strict=True)), (x,))
        return -logits.log_softmax(dim=1)[torch.arange(len(y)), y]

    return losses


def agree(model: nn.Module, expected: list[Tensor], atol: float = 1e-11) -> None:
    for ours, theirs in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(ours.detach(), theirs, rtol=1e-10, atol=atol)


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
    with pytest.raises(AssertionError):  # and the comparison would see another radius
        agree(model, sgd_by_hand(
            weights(net(seed)), 6,
            lambda w, n: FORMULAS[name](w, functional(slow, *batches[n]), batches[n][1], 1.01 * RHO[name]),
        ))  # fmt: skip


@pytest.mark.parametrize("name", ["imbsam", "focal-sam", "sse-sam", "partial-sam"])
def test_adamw_groups_and_a_tensor_for_rho(name: str) -> None:
    """A group of radius 0 is left out of the ascent; ``maximize`` climbs the other way on the negated loss."""
    x, y = batch()
    results = []
    for rho in (0.2, torch.tensor(0.2, dtype=torch.float64)):
        model = net()
        base = torch.optim.AdamW([
            {"params": model.first.parameters(), "rho": 0.0}, {"params": model.head.parameters(), "rho": rho},
        ], lr=1e-2)  # fmt: skip
        optimizer = build(name, model, rho=rho, base=base)
        for _ in range(3):
            Run(model, x, y).step(optimizer)
        results.append(weights(model))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)
    seen: list[Tensor] = []
    body, first = net(), net()
    optimizer = build(name, body, base=torch.optim.SGD([
        {"params": body.first.parameters(), "rho": 0.0}, {"params": body.head.parameters()},
    ], lr=0.0))  # fmt: skip

    class Spy(Run):
        def closure(self, subset: Tensor | None = None) -> Tensor:
            seen.append(torch.cat([p.detach().flatten() for p in self.model.head.parameters()]))
            assert torch.equal(self.model.first.weight, first.first.weight)
            return super().closure(subset)

    Spy(body, x, y).step(optimizer)
    assert (seen[-1] - seen[0]).norm().item() == pytest.approx(RHO[name], rel=1e-9)


def test_maximize_looks_the_other_way() -> None:
    x, y = batch()
    for name in NAMES:
        low, high = net(), net()
        down = build(name, low, base=torch.optim.SGD(low.parameters(), lr=0.1))
        up = build(name, high, base=torch.optim.SGD(high.parameters(), lr=0.1, maximize=True))
        run = Run(high, x, y)
        again = {"reclassify": lambda s, run=run: -run.reclassify(s)} if name == "cc-sam" else {}
        Run(low, x, y).step(down)
        up.step(lambda *subset, run=run: -run.closure(*subset), targets=y, **again)
        for a, b in zip(low.parameters(), high.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-13, atol=0)


# --- batches that lack something (K18) --------------------------------------------------------------------------------


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


def plain_steps(x: Tensor, y: Tensor, dropout: float = 0.0, factor: Tensor | None = None) -> list[Tensor]:
    model = net(norm=True, dropout=dropout, dtype=x.dtype)
    base = sgd(model)
    torch.manual_seed(3)
    for _ in range(4):
        base.zero_grad()
        losses = F.cross_entropy(model(x), y, reduction="none")
        (losses if factor is None else losses * factor).mean().backward()
        base.step()
    return [*weights(model), *model.buffers(), torch.get_rng_state()]


def sam_steps(x: Tensor, y: Tensor, rho: float, factor: float = 1.0) -> list[Tensor]:
    model = net(norm=True, dtype=x.dtype)
    optimizer = SAM(sgd(model), rho=rho, model=model)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = factor * F.cross_entropy(model(x), y)
        loss.backward()
        return loss

    torch.manual_seed(3)
    for _ in range(4):
        optimizer.step(closure)
    return [*weights(model), *model.buffers(), torch.get_rng_state()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_batch_without_tail_images_is_the_base_optimisers_step(dtype: torch.dtype) -> None:  # K18
    x, y = batch(dtype=dtype, classes=[0, 1])
    for kind in (
        lambda model: build("imbsam", model),
        lambda model: SSESAM(sgd(model), COUNTS, 0.3, threshold=20, head_ratio=0, model=model),
    ):
        ours, passes = one_step(kind, x, y, dropout=0.3)
        assert passes == 4
        assert same_bits(ours, plain_steps(x, y, dropout=0.3))


def test_a_batch_of_tail_images_alone_is_sam(monkeypatch: pytest.MonkeyPatch) -> None:  # K18
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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("classes", [[0, 1], [2, 3], [3], [0]])
@pytest.mark.parametrize("n", [1, 5])
def test_every_batch_gives_finite_numbers(name: str, classes: list[int], n: int) -> None:  # K18
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


@pytest.mark.parametrize("name", NAMES)
def test_all_gradients_zero_and_none_at_all(name: str) -> None:  # K6
    model = net()
    optimizer = build(name, model, base=torch.optim.SGD(model.parameters(), lr=0.1))
    before = weights(model)

    def nothing(subset: Tensor | None = None) -> Tensor:
        return torch.stack([sum((p * 0).sum() for p in model.parameters())] * (6 if subset is None else len(subset)))

    y = torch.tensor([0, 1, 2, 3, 0, 0])
    optimizer.step(nothing, targets=y)
    assert same_bits(before, weights(model))
    stranger = net(5)
    if name != "cc-sam":
        with pytest.raises(InputError, match="no parameter of the optimiser has a gradient"):
            Run(stranger, *batch()).step(optimizer)


# --- the base optimiser at rho 0 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rho_zero_is_the_base_bit_for_bit_in_one_pass(name: str, dtype: torch.dtype) -> None:  # K4
    x, y = batch(dtype=dtype)
    ours, passes = one_step(lambda model: build(name, model, rho=0.0), x, y, dropout=0.3)
    assert passes == 4
    assert build(name, net(), rho=0.0).passes_per_step == 1
    factor = torch.where(TAIL[y], 2.0, 1.0).to(dtype) if name == "imbsam" else None
    assert same_bits(ours, plain_steps(x, y, dropout=0.3, factor=factor))


# --- errors and interrupts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "fail_at"), EACH_PASS)
def test_an_error_in_any_pass_leaves_everything_as_it_was(name: str, fail_at: int) -> None:
    model = net(norm=True)
    x, y = batch()
    optimizer = build(name, model)
    Run(model, x, y).step(optimizer)
    before, momenta = weights(model), [s["momentum_buffer"].clone() for s in optimizer.state.values()]
    run = Run(model, x, y, fail_at=fail_at)
    with pytest.raises(RuntimeError, match="stop"):
        run.step(optimizer)
    assert len(run.passes) == fail_at
    assert same_bits(before, weights(model))
    assert same_bits(momenta, [s["momentum_buffer"] for s in optimizer.state.values()])
    assert not optimizer.is_perturbed
    # As after one pass: of PartialSAM, whose first pass is not kept, only when the second was reached.
    assert model.norm.num_batches_tracked.item() == (1 if name == "partial-sam" and fail_at == 1 else 2)
    Run(model, x, y).step(optimizer)
    assert not same_bits(before, weights(model))


@pytest.mark.parametrize("name", NAMES)
def test_interrupt_at_any_line_leaves_weights_before_or_after_the_step(name: str) -> None:
    x, y = batch(n=8)

    def go(line_number: int | None) -> tuple[list[Tensor], list[Tensor], int]:
        model = net(norm=True)
        optimizer = build(name, model, base=torch.optim.SGD(model.parameters(), lr=0.1))
        before, lines = weights(model), 0

        def trace(frame, event, arg):  # type: ignore[no-untyped-def]
            nonlocal lines
            if "saddlescape" not in frame.f_code.co_filename:
                return None
            if event == "line":
                lines += 1
                if lines == line_number:
                    raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            Run(model, x, y).step(optimizer)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        return before, weights(model), lines

    before, after, total = go(None)
    assert total > 50
    for number in range(1, total + 1, 3):
        start, end, _ = go(number)
        assert same_bits(start, before)
        assert same_bits(end, before) or same_bits(end, after), f"half done after an interrupt at line event {number}"
        # Hooks on saved tensors that were left behind would spoil all autograd of the process.
        assert torch._C._autograd._top_saved_tensors_default_hooks(True) is None, f"hooks stay on after {number}"


# --- running statistics -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("with_model", [True, False])
def test_running_statistics_see_one_pass(name: str, with_model: bool) -> None:  # K8
    x, y = batch()
    model, plain = net(norm=True), net(norm=True)
    optimizer = build(name, model)
    if not with_model:
        optimizer.model = optimizer._statistics.model = None
    seen: list[Tensor] = []

    class Spy(Run):
        def closure(self, subset: Tensor | None = None) -> Tensor:
            if subset is None:
                seen.append(self.model.first(self.x).detach())
            return super().closure(subset)

    Spy(model, x, y).step(optimizer)
    # PartialSAM makes its only pass over the whole batch at the perturbed weights.
    inputs = seen[0]
    plain.norm(inputs)
    assert model.norm.num_batches_tracked.item() == 1
    torch.testing.assert_close(model.norm.running_mean, plain.norm.running_mean, rtol=1e-13, atol=1e-16)
    torch.testing.assert_close(model.norm.running_var, plain.norm.running_var, rtol=1e-13, atol=0)
    assert torch.equal(inputs, net(norm=True).first(x)) == (name != "partial-sam")


@pytest.mark.parametrize("name", ["imbsam", "focal-sam", "sse-sam", "partial-sam"])
def test_running_statistics_of_every_pass_where_asked_for(name: str) -> None:
    model = net(norm=True)
    optimizer = build(name, model, freeze_bn_stats=False)
    run = Run(model, *batch())
    run.step(optimizer)
    # PartialSAM's part is no pass of SAM: it is kept in only when asked for.
    assert model.norm.num_batches_tracked.item() == len(run.passes) == optimizer.passes_per_step


# --- a scaler ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("clip", [None, 0.05])
def test_scaled_steps_are_the_unscaled_ones(name: str, clip: float | None) -> None:  # K1
    one, two = net(norm=True, dtype=torch.float32), net(norm=True, dtype=torch.float32)
    plain, scaled = build(name, one, clip_grad_norm=clip), build(name, two, clip_grad_norm=clip)
    scaler = GradScaler("cpu", init_scale=2.0**14)
    x, y = batch(dtype=torch.float32)
    for _ in range(5):
        a = Run(one, x, y).step(plain)
        b = Run(two, x, y).step(scaled, scaler=scaler)
        scaler.update()
        assert b.item() == pytest.approx(a.item(), rel=1e-4)
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
    assert scaler.get_scale() == 2.0**14


@pytest.mark.parametrize(("name", "huge_at"), EACH_PASS)
def test_overflow_in_any_pass_skips_the_whole_step(name: str, huge_at: int) -> None:
    model = net(norm=True, dtype=torch.float32)
    optimizer = build(name, model)
    scaler = GradScaler("cpu", init_scale=2.0**8)
    x, y = batch(dtype=torch.float32)
    Run(model, x, y).step(optimizer, scaler=scaler)
    scaler.update()
    before, momenta = weights(model), [s["momentum_buffer"].clone() for s in optimizer.state.values()]
    run = Run(model, x, y, huge_at=huge_at)
    run.step(optimizer, scaler=scaler)
    scaler.update()
    assert any(subset is None for subset in run.passes)  # a training loop notes the losses of the whole batch
    assert scaler.get_scale() == 2.0**7
    assert same_bits(before, weights(model))
    assert same_bits(momenta, [s["momentum_buffer"] for s in optimizer.state.values()])
    assert all(torch.isfinite(v).all() for v in model.state_dict().values())
    Run(model, x, y).step(optimizer, scaler=scaler)
    scaler.update()
    assert not same_bits(before, weights(model))


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_forward_stays_close(name: str) -> None:
    one, two = net(dtype=torch.float32), net(dtype=torch.float32)
    plain, half = build(name, one), build(name, two)
    scaler = GradScaler("cpu", init_scale=2.0**10)
    x, y = batch(dtype=torch.float32)

    class Half(Run):
        def _loss(self, logits: Tensor, y: Tensor) -> Tensor:
            return super()._loss(logits, y).to(torch.bfloat16 if self.low else torch.float32)  # type: ignore[attr-defined]

    for number in range(6):
        Run(one, x, y).step(plain)
        run = Half(two, x, y)
        run.low = number % 2  # type: ignore[attr-defined]  # losses may come back in half precision too
        with torch.autocast("cpu", torch.float16):
            run.step(half, scaler=scaler)
        scaler.update()
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=2e-2)
    assert q.dtype == torch.float32


def test_a_scaler_that_calls_step_itself_is_refused_and_forgotten() -> None:
    model = net(dtype=torch.float32)
    optimizer = build("imbsam", model)
    x, y = batch(dtype=torch.float32)
    scaler = GradScaler("cpu", init_scale=2.0**8)
    scaler.scale(F.cross_entropy(model(x), y)).backward()
    with pytest.raises(InputError, match="targets=labels, scaler=scaler"):
        scaler.step(optimizer)
    scaler.update()
    Run(model, x, y).step(optimizer, scaler=scaler)


# --- an optimiser to schedulers, checkpoints, copies ------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_save_load_continues_on_the_same_bits(name: str) -> None:  # K11
    extra = {"total_steps": 8, "gamma": 0.75} if name == "sse-sam" else {}
    batches = [batch(number) for number in range(8)]
    model = net(norm=True)
    optimizer = build(name, model, **extra)
    optimizer.set_rho(0.21)
    for x, y in batches[:4]:
        Run(model, x, y).step(optimizer)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    twin_model, twin = copy.deepcopy((model, optimizer))
    for x, y in batches[4:]:
        Run(model, x, y).step(optimizer)
    other = net(9, norm=True)
    other.load_state_dict(saved["model"])
    resumed = build(name, other, **extra)
    resumed.load_state_dict(saved["optimizer"])
    assert resumed.param_groups[0]["rho"] == 0.21
    for x, y in batches[4:]:
        Run(other, x, y).step(resumed)
        Run(twin_model, x, y).step(twin)
    assert same_bits([*model.parameters(), *model.buffers()], [*other.parameters(), *other.buffers()])
    assert same_bits([*model.parameters(), *model.buffers()], [*twin_model.parameters(), *twin_model.buffers()])


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_go_between_the_wrapper_and_the_bare_base(name: str) -> None:
    model = net()
    x, y = batch()
    plain = sgd(model)
    F.cross_entropy(model(x), y).backward()
    plain.step()
    wrapped = build(name, model, base=sgd(model, lr=0.5))
    wrapped.load_state_dict(plain.state_dict())
    assert wrapped.param_groups[0]["lr"] == 0.1
    Run(model, x, y).step(wrapped)
    plain.load_state_dict(wrapped.state_dict())
    plain.step()


@pytest.mark.parametrize("name", NAMES)
def test_schedulers_and_hooks(name: str, recwarn: pytest.WarningsRecorder) -> None:  # K10
    model = net()
    optimizer = build(name, model)
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *a: seen.append("pre"))
    optimizer.register_step_post_hook(lambda *a: seen.append("post"))
    optimizer.base_optimizer.register_step_pre_hook(lambda *a: seen.append("base"))
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=2)
    Run(model, *batch()).step(optimizer)
    scheduler.step()
    assert seen == ["pre", "base", "post"]
    assert optimizer.base_optimizer.param_groups[0]["lr"] == pytest.approx(0.05)
    assert not recwarn.list
    assert f"rho: {RHO[name]}" in repr(optimizer)


def test_only_these_ask_for_losses_that_are_not_averaged() -> None:
    model = net()
    assert all(build(name, model).per_sample and isinstance(build(name, model), SplitOptimizer) for name in NAMES)
    assert not SAM(sgd(model)).per_sample
    assert not MomentumSAM(sgd(model)).per_sample


def test_the_base_class_alone_is_the_base_optimiser() -> None:
    x, y = batch()
    ours, _ = one_step(lambda model: SplitOptimizer(sgd(model), COUNTS, 0.5, model=model), x, y, dropout=0.3)
    assert same_bits(ours, plain_steps(x, y, dropout=0.3))


@pytest.mark.parametrize("name", ["imbsam", "focal-sam", "sse-sam"])
def test_no_step_waits_for_the_device(name: str) -> None:
    """On the meta device there is nothing to wait for: any look at a value raises."""
    model = net(dtype=torch.float32).to("meta")
    x, y = (tensor.to("meta") for tensor in batch(dtype=torch.float32))
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, foreach=True)
    optimizer = build(name, model, base=base, rho=torch.tensor(0.1), clip_grad_norm=1.0)
    for _ in range(2):
        Run(model, x, y).step(optimizer)
    assert optimizer.grad_norm.is_meta


def test_a_compiled_network_takes_batches_with_and_without_tail_images() -> None:
    """torch compiles the backward pass when it is first run; that run must not settle for a graph used once."""
    results = []
    for wrap in (lambda model: model, lambda model: torch.compile(model, backend="aot_eager")):
        torch.compiler.reset()
        model = net(norm=True, dtype=torch.float32, head="cosine")
        network = wrap(model)
        optimizer = build("imbsam", model)
        for classes in ([0, 1], [0, 1, 2, 3], [2, 3], [0, 1, 2, 3]):
            x, y = batch(dtype=torch.float32, classes=classes)
            optimizer.step(
                lambda network=network, x=x, y=y: F.cross_entropy(network(x), y, reduction="none"), targets=y
            )
        results.append(weights(model))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_network_compiled_for_one_backward_pass_is_one_line_and_its_way_out_works() -> None:
    from torch._functorch import config

    torch.compiler.reset()
    x, y = batch(dtype=torch.float32)
    model = net(dtype=torch.float32, head="cosine")
    network = torch.compile(model, backend="aot_eager")
    F.cross_entropy(network(x), y).backward()  # as plain training does
    optimizer = build("focal-sam", model)
    before = weights(model)

    def closure() -> Tensor:
        return F.cross_entropy(network(x), y, reduction="none")

    with pytest.raises(InputError, match=r"donated_buffer = False, then call torch.compiler.reset\(\)") as caught:
        optimizer.step(closure, targets=y)
    assert "\n" not in str(caught.value)
    assert same_bits(before, weights(model))
    with config.patch(donated_buffer=False):
        torch.compiler.reset()
        optimizer.step(closure, targets=y)
    torch.compiler.reset()
    assert not same_bits(before, weights(model))


# --- bad input --------------------------------------------------------------------------------------------------------


def test_bad_input_is_one_line() -> None:
    model = net()
    x, y = batch()
    optimizer = build("imbsam", model)
    run = Run(model, x, y)

    def losses() -> Tensor:
        return F.cross_entropy(model(x), y, reduction="none")

    head = list(model.head.parameters())
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: optimizer.step(), "needs a closure that returns the per-sample losses"),
        (lambda: optimizer.step(losses), "needs the labels"),
        (lambda: optimizer.step(lambda: losses().mean(), targets=y), r"reduction='none'.*got \[\]"),
        (lambda: optimizer.step(lambda: losses()[:5], targets=y), r"shape \[24\].*got \[5\]"),
        (lambda: optimizer.step(lambda: 3.0, targets=y), "got a float"),
        (lambda: optimizer.step(lambda: losses().detach(), targets=y), "no graph"),
        (lambda: optimizer.step(losses, targets=y + 1), r"targets\[\d+\] is 4; labels are whole numbers from 0 to 3"),
        (lambda: optimizer.step(losses, targets=y[:0]), "batch is empty"),
        (lambda: optimizer.step(losses, targets=torch.zeros(24, 7)), r"\[24, 7\]"),
        (lambda: optimizer.ascend(), "no ascend"),
        (lambda: optimizer.descend(), "no ascend"),
        (lambda: ImbSAM(sgd(model), [100]), "two or more"),
        (lambda: ImbSAM(sgd(model), [100, 0, 3]), "class 1 has no training images"),
        (lambda: ImbSAM(sgd(model), COUNTS, threshold=2), "no class has fewer than threshold=2"),
        (lambda: ImbSAM(sgd(model), COUNTS, tail_weight=0), "tail_weight"),
        (lambda: ImbSAM(sgd(model), COUNTS, rho=-1), "rho must be"),
        (lambda: FocalSAM(sgd(model), COUNTS, lam=-1), "lam must"),
        (lambda: FocalSAM(sgd(model), COUNTS, gamma=float("nan")), "gamma must"),
        (lambda: SSESAM(sgd(model), COUNTS, head_ratio=-1), "head_ratio"),
        (lambda: SSESAM(sgd(model), COUNTS, gamma=70), "share of the training"),
        (lambda: SSESAM(sgd(model), COUNTS, total_steps=0), "total_steps"),
        (lambda: PartialSAM(sgd(model), COUNTS, share=0), "share must"),
        (lambda: ClassConditionalSAM(sgd(model), COUNTS, head, phi=2), "phi must"),
        (lambda: ClassConditionalSAM(sgd(model), COUNTS, head, norm="max"), "norm must"),  # type: ignore[arg-type]
        (lambda: ClassConditionalSAM(sgd(model), COUNTS, []), "head_parameters must"),
        (lambda: ClassConditionalSAM(sgd(model), COUNTS, net().head.parameters()), "head_parameters must"),
    ]
    for call, words in cases:
        before = weights(model)
        with pytest.raises(InputError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert same_bits(before, weights(model))
    run.step(optimizer)
