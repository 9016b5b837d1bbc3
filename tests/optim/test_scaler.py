"""SAM under GradScaler: two passes, one transaction. The scaler works on the CPU, so all of it is tested here."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from family import batch, closure_of, closure_over, net
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn import functional as F

from saddlescape.errors import InputError
from saddlescape.optim import ASAM, SAM, MomentumSAM, WrappedOptimizer, accumulated_closure


def build(name: str, model: nn.Module, clip: float | None = None) -> WrappedOptimizer:
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if name == "sam":
        return SAM(base, rho=0.1, model=model, clip_grad_norm=clip)
    if name == "asam":
        return ASAM(base, rho=0.5, model=model, clip_grad_norm=clip)
    return MomentumSAM(base, rho=0.3, clip_grad_norm=clip)


@pytest.mark.parametrize("broken_pass", [1, 2])
@pytest.mark.parametrize("form", ["two calls", "trainer"])
def test_overflow_in_either_pass_skips_the_whole_step(broken_pass: int, form: str) -> None:
    x, y = batch(dtype=torch.float32)
    model = net(norm=True, dtype=torch.float32)
    optimizer = build("sam", model)
    scaler = GradScaler("cpu", init_scale=2.0**8)
    optimizer.step(closure_of(optimizer, model, x, y, scaler), scaler=scaler)
    scaler.update()
    before = copy.deepcopy(model.state_dict())
    momenta = [state["momentum_buffer"].clone() for state in optimizer.state.values()]
    passes = []

    def closure() -> Tensor:
        passes.append(1)
        loss = closure_of(optimizer, model, x, y, scaler)()
        if len(passes) == broken_pass:
            model.first.weight.grad[0, 0] = float("inf")
        return loss

    closure()
    if optimizer.ascend(scaler=scaler):
        closure()
    if form == "two calls":
        optimizer.descend(scaler=scaler)
    else:
        scaler.step(optimizer)
    scaler.update()
    assert len(passes) == broken_pass  # after an overflow in the first pass there is no second
    assert scaler.get_scale() == 2.0**7
    for key, value in model.state_dict().items():
        if "running" not in key and "tracked" not in key:
            assert torch.equal(value, before[key]), key
    assert model.norm.num_batches_tracked.item() == 2
    assert all(torch.isfinite(v).all() for v in model.state_dict().values())
    assert all(
        torch.equal(state["momentum_buffer"], m) for state, m in zip(optimizer.state.values(), momenta, strict=True)
    )
    optimizer.step(closure_of(optimizer, model, x, y, scaler), scaler=scaler)  # and on it goes
    scaler.update()
    assert not torch.equal(model.first.weight, before["first.weight"])


def test_a_second_pass_made_although_none_is_wanted_does_no_harm() -> None:
    x, y = batch(dtype=torch.float32)
    model = net(norm=True, dtype=torch.float32)
    optimizer = build("sam", model)
    scaler = GradScaler("cpu", init_scale=2.0**8)
    before = [p.detach().clone() for p in model.parameters()]
    closure = closure_of(optimizer, model, x, y, scaler)
    closure()
    model.first.weight.grad.fill_(float("nan"))
    assert not optimizer.ascend(scaler=scaler)
    closure()
    optimizer.descend(scaler=scaler)
    scaler.update()
    assert scaler.get_scale() == 2.0**7
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("unscale_first", [False, True])
def test_a_trainer_that_calls_scaler_step(unscale_first: bool) -> None:
    x, y = batch(dtype=torch.float32)
    plain, scaled = net(norm=True, dtype=torch.float32), net(norm=True, dtype=torch.float32)
    one, two = build("sam", plain, 0.05), build("sam", scaled, 0.05)
    scaler = GradScaler("cpu", init_scale=2.0**14)
    for _ in range(3):
        one.step(closure_of(one, plain, x, y))
        closure = closure_of(two, scaled, x, y, scaler)
        closure()
        two.ascend(scaler=scaler)
        closure()
        if unscale_first:
            scaler.unscale_(two)
        scaler.step(two)
        scaler.update()
        assert not two.is_perturbed
    for p, q in zip(plain.parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def test_scaler_step_with_a_closure_is_refused_and_forgotten() -> None:
    x, y = batch(dtype=torch.float32)
    model = net(norm=True, dtype=torch.float32)
    optimizer = build("sam", model)
    scaler = GradScaler("cpu", init_scale=2.0**8)
    closure = closure_of(optimizer, model, x, y, scaler)
    closure()
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(InputError, match="scaler=scaler") as caught:
        scaler.step(optimizer, closure)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    scaler.update()
    with pytest.raises(InputError, match="ascend"):
        closure()
        scaler.step(optimizer)
    scaler.update()
    optimizer.step(closure, scaler=scaler)  # nothing of the refused calls is left
    scaler.update()
    assert not torch.equal(model.first.weight, before[0])


def test_rho_zero_and_a_disabled_scaler() -> None:
    x, y = batch(dtype=torch.float32)
    results = []
    for scaler in (GradScaler("cpu", init_scale=2.0**14), GradScaler("cpu", enabled=False)):
        for rho in (0.0, 0.2):
            model = net(norm=True, dtype=torch.float32)
            optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=rho)
            for _ in range(2):
                optimizer.step(closure_of(optimizer, model, x, y, scaler), scaler=scaler)
                scaler.update()
            results.append([p.detach() for p in model.parameters()])
    for enabled, disabled in ((0, 2), (1, 3)):
        for p, q in zip(results[enabled], results[disabled], strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("fused", [torch.optim.SGD, torch.optim.AdamW])
def test_fused_base_that_unscales_itself(fused: type[torch.optim.Optimizer]) -> None:
    x, y = batch(dtype=torch.float32)
    plain, scaled = net(norm=True, dtype=torch.float32), net(norm=True, dtype=torch.float32)
    one = SAM(fused(plain.parameters(), lr=0.01, fused=True), rho=0.1)
    two = SAM(fused(scaled.parameters(), lr=0.01, fused=True), rho=0.1)
    scaler = GradScaler("cpu", init_scale=2.0**14)
    for _ in range(3):
        one.step(closure_of(one, plain, x, y))
        two.step(closure_of(two, scaled, x, y, scaler), scaler=scaler)
        scaler.update()
    for p, q in zip(plain.parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


def test_accumulation_clipping_and_scaling_together() -> None:
    x, y = batch(dtype=torch.float32)
    whole, parts = net(dtype=torch.float32), net(dtype=torch.float32)
    one, two = build("sam", whole, 0.5), build("sam", parts, 0.5)
    scaler = GradScaler("cpu", init_scale=2.0**12)
    micro = list(zip(x.split(6), y.split(6), strict=True))
    for _ in range(3):
        one.step(closure_of(one, whole, x, y))
        two.step(
            accumulated_closure(two, lambda part: F.cross_entropy(parts(part[0]), part[1]), micro, scaler=scaler),
            scaler=scaler,
        )
        scaler.update()
    for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["sam", "asam", "momentum-sam"])
def test_autocast_around_the_whole_step_is_autocast_inside_the_closure(name: str) -> None:
    """Autocast caches its narrow copies of the weights until it ends; the second pass must not see those of w."""
    x, y = batch(dtype=torch.float32)
    results = []
    for outside in (False, True):
        model = net(norm=True, dtype=torch.float32)
        optimizer = build(name, model)

        def narrow(model: nn.Module = model) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return F.cross_entropy(model(x).float(), y)

        for _ in range(3):
            with torch.autocast("cpu", torch.bfloat16) if outside else contextlib.nullcontext():
                optimizer.step(closure_over(optimizer, narrow))
        results.append([p.detach() for p in model.parameters()])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
