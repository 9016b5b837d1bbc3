"""What every optimiser of the family promises: the base at rho 0, whole steps or none, and a life as torch's own."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from family import (
    EACH_PASS,
    NAMES,
    RHO,
    TAIL,
    Run,
    batch,
    build,
    each_interrupt,
    momenta,
    net,
    same_bits,
    sgd,
    weights,
)
from torch import Tensor
from torch.amp import GradScaler
from torch.nn import functional as F

from saddlescape.optim import WrappedOptimizer


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rho_zero_is_the_base_bit_for_bit_in_one_pass(name: str, dtype: torch.dtype) -> None:
    x, y = batch(dtype=dtype)
    # ImbSAM weighs tail images twice whether they climb or not.
    factor = torch.where(TAIL[y], 2.0, 1.0).to(dtype) if name == "imbsam" else torch.ones(len(y), dtype=dtype)
    results = []
    for wrapped in (True, False):
        model = net(norm=True, dropout=0.3, dtype=dtype)
        base = sgd(model)
        optimizer = build(name, model, rho=0.0, base=base)
        torch.manual_seed(3)
        for _ in range(12):
            if wrapped:
                run = Run(model, x, y)
                run.step(optimizer)
                assert len(run.passes) == optimizer.passes_per_step == 1
            else:
                base.zero_grad()
                losses = F.cross_entropy(model(x), y, reduction="none")
                (losses * factor if name == "imbsam" else losses).mean().backward()
                base.step()
        results.append([*weights(model), *model.buffers(), *momenta(base), torch.get_rng_state()])
    assert same_bits(*results)


def test_the_plain_wrapper_is_the_base() -> None:
    x, y = batch()
    one, two = net(), net()
    plain, wrapped = sgd(one), WrappedOptimizer(sgd(two), 0.0)
    for _ in range(2):
        Run(one, x, y).step(plain)
        Run(two, x, y).step(wrapped)
    assert same_bits(weights(one), weights(two))


@pytest.mark.parametrize("name", NAMES)
def test_all_gradients_zero(name: str) -> None:
    model = net()
    optimizer = build(name, model, base=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    before = weights(model)

    class Nothing(Run):
        def _loss(self, logits: Tensor, y: Tensor) -> Tensor:
            return super()._loss(0 * logits, y) + 0 * sum(p.sum() for p in model.parameters())

    for _ in range(2):
        Nothing(model, *batch()).step(optimizer)
    assert same_bits(before, weights(model))


@pytest.mark.parametrize("name", [name for name in NAMES if name != "cc-sam"])
def test_adamw_groups_and_a_tensor_for_rho(name: str) -> None:
    """A group of radius 0 is left out of the ascent."""
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
    base.param_groups[0]["rho"] = torch.tensor(0.0)
    optimizer.set_rho(0.25)
    assert rho.item() == 0.25  # filled in place, as a captured graph needs it
    assert [float(group["rho"]) for group in base.param_groups] == [0.25, 0.25]
    seen: list[Tensor] = []
    body, first = net(), net()
    optimizer = build(name, body, base=torch.optim.SGD([
        {"params": body.first.parameters(), "rho": 0.0}, {"params": body.head.parameters()},
    ], lr=0.0, momentum=0.9))  # fmt: skip

    class Spy(Run):
        def closure(self, subset: Tensor | None = None) -> Tensor:
            seen.append(torch.cat([p.detach().flatten() for p in self.model.head.parameters()]))
            assert torch.equal(self.model.first.weight, first.first.weight)
            return super().closure(subset)

    for _ in range(2):  # Momentum-SAM's first step has no momentum yet
        Spy(body, x, y).step(optimizer)
    length = (seen[-1] - seen[0]).norm().item()
    assert length == pytest.approx(RHO[name], rel=1e-9) if name != "asam" else length > 0  # ASAM's is scaled by |w|


@pytest.mark.parametrize("name", NAMES)
def test_maximize_looks_the_other_way(name: str) -> None:
    x, y = batch()
    low, high = net(), net()
    down = build(name, low, base=torch.optim.SGD(low.parameters(), lr=0.1, momentum=0.9))
    up = build(name, high, base=torch.optim.SGD(high.parameters(), lr=0.1, momentum=0.9, maximize=True))

    class Negated(Run):
        def _loss(self, logits: Tensor, y: Tensor) -> Tensor:
            return -super()._loss(logits, y)

    for _ in range(2):
        Run(low, x, y).step(down)
        Negated(high, x, y).step(up)
    for a, b in zip(low.parameters(), high.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


# --- errors and interrupts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "fail_at"), EACH_PASS)
def test_an_error_in_any_pass_leaves_everything_as_it_was(name: str, fail_at: int) -> None:
    model = net(norm=True)
    x, y = batch()
    optimizer = build(name, model)
    Run(model, x, y).step(optimizer)
    before, velocity = weights(model), momenta(optimizer)
    run = Run(model, x, y, fail_at=fail_at)
    with pytest.raises(RuntimeError, match="stop"):
        run.step(optimizer)
    assert len(run.passes) == fail_at
    assert same_bits(before, weights(model))
    assert same_bits(velocity, momenta(optimizer))
    assert not optimizer.is_perturbed
    # As after one pass: of PartialSAM, whose first pass is not kept, only when the second was reached.
    assert model.norm.num_batches_tracked.item() == (1 if name == "partial-sam" and fail_at == 1 else 2)
    Run(model, x, y).step(optimizer)
    assert not same_bits(before, weights(model))


@pytest.mark.parametrize("name", NAMES)
def test_interrupt_at_any_line_leaves_weights_before_or_after_the_step(name: str) -> None:
    x, y = batch(n=8)

    def run() -> Any:
        model = net(norm=True)
        optimizer = build(name, model, base=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
        Run(model, x, y).step(optimizer)
        return model, lambda: Run(model, x, y).step(optimizer)

    before, after, *ends = each_interrupt(run, every=1 if name == "sam" else 3)
    assert all(same_bits(end, before) or same_bits(end, after) for end in ends)
    assert any(same_bits(end, before) for end in ends)
    assert name != "sam" or any(same_bits(end, after) for end in ends)  # every third line may miss the last ones


# --- running statistics -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NAMES if name != "momentum-sam"])
def test_running_statistics_see_one_pass(name: str) -> None:
    x, y = batch()
    model, plain = net(norm=True), net(norm=True)
    optimizer = build(name, model)
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


@pytest.mark.parametrize("name", ["sam", "asam", "imbsam", "focal-sam", "sse-sam", "partial-sam"])
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
def test_scaled_steps_are_the_unscaled_ones(name: str, clip: float | None) -> None:
    one, two = net(norm=True, dtype=torch.float32), net(norm=True, dtype=torch.float32)
    plain, scaled = build(name, one, clip_grad_norm=clip), build(name, two, clip_grad_norm=clip)
    scaler = GradScaler("cpu", init_scale=2.0**14, growth_interval=4)
    x, y = batch(dtype=torch.float32)
    for _ in range(5):
        a = Run(one, x, y).step(plain)
        b = Run(two, x, y).step(scaled, scaler=scaler)
        scaler.update()
        assert b.item() == pytest.approx(a.item(), rel=1e-4)
    for p, q in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
    assert scaler.get_scale() == 2.0**15  # one growth: the scale is updated once a step


@pytest.mark.parametrize(("name", "huge_at"), EACH_PASS)
def test_overflow_in_any_pass_skips_the_whole_step(name: str, huge_at: int) -> None:
    model = net(norm=True, dtype=torch.float32)
    optimizer = build(name, model)
    scaler = GradScaler("cpu", init_scale=2.0**8)
    x, y = batch(dtype=torch.float32)
    Run(model, x, y).step(optimizer, scaler=scaler)
    scaler.update()
    before, velocity = weights(model), momenta(optimizer)
    run = Run(model, x, y, huge_at=huge_at)
    run.step(optimizer, scaler=scaler)
    scaler.update()
    assert any(subset is None for subset in run.passes)  # a training loop notes the losses of the whole batch
    assert scaler.get_scale() == 2.0**7
    assert same_bits(before, weights(model))
    assert same_bits(velocity, momenta(optimizer))
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


# --- an optimiser to schedulers, checkpoints, copies ------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_save_load_continues_on_the_same_bits(name: str) -> None:
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
def test_schedulers_and_hooks(name: str, recwarn: pytest.WarningsRecorder) -> None:
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


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("cc-sam", "partial-sam")])
def test_no_step_waits_for_the_device(name: str) -> None:
    """On the meta device there is nothing to wait for: any look at a value raises."""
    model = net(dtype=torch.float32).to("meta")
    x, y = (tensor.to("meta") for tensor in batch(dtype=torch.float32))
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, foreach=True)
    optimizer = build(name, model, base=base, rho=torch.tensor(0.1), clip_grad_norm=1.0)
    for _ in range(2):
        Run(model, x, y).step(optimizer)
    assert optimizer.grad_norm.is_meta
