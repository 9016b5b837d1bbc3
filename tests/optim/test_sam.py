"""SAM against a quadratic worked by hand, an independent implementation, and another library."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from family import agree, batch, closure_of, closure_over, net, sam_gradient, same_bits, sgd, sgd_by_hand, weights
from torch import Tensor, nn
from torch.nn import functional as F

from saddlescape.errors import InputError
from saddlescape.optim import ASAM, SAM, accumulated_closure

# --- the numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adaptive", [False, True])
def test_ten_steps_equal_an_independent_implementation(adaptive: bool) -> None:
    model = net()
    x, y = batch()
    gradient = sam_gradient(model, x, y, 0.3, lambda i, p: p.abs() if adaptive else torch.ones_like(p))
    expected = sgd_by_hand(weights(model), 10, gradient)
    optimizer = SAM(sgd(model), rho=0.3, adaptive=adaptive)
    for _ in range(10):
        optimizer.step(closure_of(optimizer, model, x, y))
    agree(model, expected)


@pytest.mark.parametrize("eta", [0.01, 0.0])
def test_asam_of_its_authors(eta: float) -> None:
    model = net(norm=True)  # with BatchNorm: its scale is called weight too
    x, y = batch()
    is_weight = ["weight" in name for name, _ in model.named_parameters()]
    gradient = sam_gradient(model, x, y, 0.5, lambda i, p: p.abs() + eta if is_weight[i] else torch.ones_like(p))
    expected = sgd_by_hand(weights(model), 10, gradient)
    optimizer = ASAM(sgd(model), eta=eta, model=model)
    assert optimizer.param_groups[0]["rho"] == 0.5
    for _ in range(10):
        optimizer.step(closure_of(optimizer, model, x, y))
    agree(model, expected)


def test_the_two_forms_of_asam_differ_and_one_is_the_adaptive_flag() -> None:
    x, y = batch()
    results = []
    for build in (
        lambda base, model: SAM(base, 0.5, adaptive=True),
        lambda base, model: ASAM(base, 0.5, eta=0.0, scale_biases=True),
        lambda base, model: ASAM(base, 0.5, model=model),
    ):
        model = net(norm=True)
        with torch.no_grad():
            model.first.bias.fill_(0.2)
        optimizer = build(torch.optim.SGD(model.parameters(), lr=0.1), model)
        optimizer.step(closure_of(optimizer, model, x, y))
        results.append(weights(model))
    assert same_bits(results[0], results[1])
    assert not same_bits(results[0], results[2])
    with pytest.raises(InputError, match="model="):
        ASAM(torch.optim.SGD(model.parameters(), lr=0.1))


@pytest.mark.parametrize("adaptive", [False, True])
def test_another_library_agrees(adaptive: bool) -> None:
    other = pytest.importorskip("pytorch_optimizer")
    x, y = batch()
    ours, theirs = net(), net()
    kw = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}
    optimizer = SAM(torch.optim.SGD(ours.parameters(), **kw), rho=0.2, adaptive=adaptive)
    rival = other.SAM(theirs.parameters(), torch.optim.SGD, rho=0.2, adaptive=adaptive, **kw)
    for _ in range(5):
        optimizer.step(closure_of(optimizer, ours, x, y))
        closure = closure_of(rival, theirs, x, y)
        closure()
        rival.step(closure)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-8)  # theirs takes the norm in float32


def test_two_call_form_is_the_closure_form() -> None:
    x, y = batch()
    one, two = net(norm=True), net(norm=True)
    first = SAM(torch.optim.SGD(one.parameters(), lr=0.1, momentum=0.9), rho=0.1)
    second = SAM(torch.optim.SGD(two.parameters(), lr=0.1, momentum=0.9), rho=0.1)
    for _ in range(3):
        first.step(closure_of(first, one, x, y))
        closure_of(second, two, x, y)()
        assert not second.is_perturbed
        assert second.ascend()
        assert second.is_perturbed
        closure_of(second, two, x, y)()
        second.descend()
        assert not second.is_perturbed
    assert same_bits(weights(one), weights(two))
    assert same_bits(list(one.buffers()), list(two.buffers()))


def test_no_gradient_computed_before_and_the_loss_is_that_at_w() -> None:
    model = net(norm=True)
    x, y = batch()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.5)
    losses = []

    def closure() -> Tensor:
        assert torch.is_grad_enabled()
        losses.append(closure_of(optimizer, model, x, y)())
        return losses[-1]

    at_w = F.cross_entropy(copy.deepcopy(model)(x), y)
    with torch.no_grad():
        loss = optimizer.step(closure)
    assert len(losses) == optimizer.passes_per_step == 2
    assert loss is losses[0]
    assert torch.equal(loss.detach(), at_w.detach())
    assert losses[1] > losses[0]


# --- rho 0, groups, missing and odd gradients -------------------------------------------------------------------------


def test_gradient_in_one_pass_only_is_restored_all_the_same() -> None:
    model = net()
    x, y = batch()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.5)
    before = weights(model)
    passes = []

    def closure() -> Tensor:
        passes.append(1)
        loss = closure_of(optimizer, model, x, y)()
        if len(passes) == 1:
            model.head.bias.grad = None
        else:
            model.first.weight.grad = model.first.bias.grad = None
        return loss

    optimizer.step(closure)
    assert torch.equal(model.first.weight, before[0])  # perturbed, then no gradient: home and not stepped
    assert not torch.equal(model.head.bias, before[-1])  # not perturbed, stepped


def test_sparse_and_complex_and_half_gradients() -> None:
    torch.manual_seed(0)
    results = []
    for sparse in (False, True):
        torch.manual_seed(0)
        table = nn.Embedding(7, 4, sparse=sparse, dtype=torch.float64)
        optimizer = SAM(torch.optim.SGD(table.parameters(), lr=0.1), rho=0.3)
        rows = torch.tensor([1, 3, 3, 5])
        optimizer.step(closure_over(optimizer, lambda table=table, rows=rows: (table(rows) ** 2).sum()))
        results.append(weights(table))
    torch.testing.assert_close(results[0], results[1], rtol=1e-14, atol=0)

    z = torch.tensor([3 + 4j], dtype=torch.complex128, requires_grad=True)
    optimizer = SAM(torch.optim.SGD([z], lr=0.1), rho=1.0)
    (z.abs() ** 2).sum().backward()  # gradient 2 z, direction z / |z| = 0.6 + 0.8i
    optimizer.ascend()
    assert z.detach().item() == pytest.approx(3.6 + 4.8j)
    optimizer.restore()
    assert z.detach().item() == 3 + 4j

    h = torch.full((1000,), 0.5, dtype=torch.bfloat16, requires_grad=True)
    optimizer = SAM(torch.optim.SGD([h], lr=0.1), rho=1.0)
    (h * 300).sum().backward()
    optimizer.ascend()
    assert optimizer.grad_norm.dtype == torch.float32
    assert optimizer.grad_norm.item() == pytest.approx(300 * math.sqrt(1000), rel=1e-2)


def test_parameters_that_share_memory_come_home() -> None:
    a = nn.Parameter(torch.arange(1.0, 5.0))
    b = nn.Parameter(a.data)
    optimizer = SAM(torch.optim.SGD([a, b], lr=0.0), rho=0.7)
    before = a.detach().clone()
    optimizer.step(closure_over(optimizer, lambda: (a * b).sum()))
    assert torch.equal(a.detach(), before)


# --- exceptions and interrupts ----------------------------------------------------------------------------------------


def test_interrupt_while_restoring(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net(norm=True)
    x, y = batch()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.5)
    before = weights(model)
    closure = closure_of(optimizer, model, x, y)
    copy_, calls = torch._foreach_copy_, []

    def interrupted(*args):  # type: ignore[no-untyped-def]
        if optimizer.is_perturbed and not calls:
            calls.append(1)
            raise KeyboardInterrupt
        return copy_(*args)

    monkeypatch.setattr(torch, "_foreach_copy_", interrupted)
    with pytest.raises(KeyboardInterrupt):
        optimizer.step(closure)
    assert calls
    assert same_bits(weights(model), before)


def test_a_step_begun_and_not_ended_is_refused_and_undone() -> None:
    model = net(norm=True)
    x, y = batch()
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1), rho=0.5)
    before = weights(model)
    closure_of(optimizer, model, x, y)()
    optimizer.ascend()
    with pytest.raises(InputError, match="begun with ascend"):
        optimizer.step(closure_of(optimizer, model, x, y))
    assert same_bits(weights(model), before)
    closure_of(optimizer, model, x, y)()
    optimizer.ascend()
    with pytest.raises(InputError, match="begun with ascend"):
        optimizer.ascend()
    optimizer.step(closure_of(optimizer, model, x, y))


# --- an optimiser to schedulers, checkpoints, hooks -------------------------------------------------------------------


@pytest.mark.parametrize("form", ["closure", "two calls"])
def test_a_one_cycle_scheduler_on_the_wrapper_changes_rate_and_momentum(
    form: str, recwarn: pytest.WarningsRecorder
) -> None:
    model = net(norm=True)
    optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.1)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.2, total_steps=4)
    closure = closure_of(optimizer, model, *batch())
    if form == "closure":
        optimizer.step(closure)
    else:
        closure()
        optimizer.ascend()
        closure()
        optimizer.descend()
    rate = optimizer.param_groups[0]["lr"]
    scheduler.step()
    assert optimizer.base_optimizer.param_groups[0]["lr"] > rate
    assert optimizer.base_optimizer.param_groups[0]["momentum"] < 0.95
    assert not recwarn.list


def test_groups_and_the_hooks_of_a_state() -> None:
    model = net(norm=True)
    base = torch.optim.SGD(model.first.parameters(), lr=0.1)
    optimizer = SAM(base, rho=0.2)
    optimizer.register_state_dict_post_hook(lambda o, d: {**d, "mark": 1})
    optimizer.register_load_state_dict_pre_hook(lambda o, d: {k: v for k, v in d.items() if k != "mark"})
    optimizer.add_param_group({"params": list(model.head.parameters()), "lr": 0.3})
    assert optimizer.param_groups is base.param_groups
    assert optimizer.state is base.state
    assert optimizer.param_groups[1]["rho"] == optimizer.defaults["rho"] == 0.2
    optimizer.step(closure_of(optimizer, model, *batch()))
    saved = optimizer.state_dict()
    assert saved["mark"] == 1
    optimizer.load_state_dict(saved)
    assert isinstance(optimizer, torch.optim.Optimizer)


def test_bad_input_is_one_line() -> None:
    params = [nn.Parameter(torch.ones(3))]
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: SAM(torch.optim.LBFGS(params)), "closure itself"),
        (lambda: SAM(torch.optim.Adadelta(params)), "called rho"),
        (lambda: SAM(SAM(torch.optim.SGD(params, lr=0.1))), "itself a SAM"),
        (lambda: SAM(torch.optim.SGD), "must be a built"),
        (lambda: SAM(params), "must be a built"),
        (lambda: SAM(torch.optim.SGD(params, lr=0.1), rho=-1), "rho must be"),
        (lambda: SAM(torch.optim.SGD(params, lr=0.1), rho=float("nan")), "rho must be"),
        (lambda: SAM(torch.optim.SGD([{"params": params, "rho": -1}], lr=0.1)), "rho must be"),
        (lambda: SAM(torch.optim.SGD(params, lr=0.1), rho=torch.ones(2)), "0-dim"),
        (lambda: SAM(torch.optim.SGD(params, lr=0.1), clip_grad_norm=0), "clip_grad_norm"),
        (lambda: SAM(torch.optim.SGD(params, lr=0.1), sync_ascent=False), "sync_ascent=False needs"),
        (lambda: SAM(torch.optim.SGD(params, lr=0.1)).step(), "needs a closure"),
        (lambda: SAM(torch.optim.SGD(params, lr=0.1)).step(lambda: torch.zeros(())), "no parameter has a gradient"),
        (lambda: SAM(torch.optim.SGD(params, lr=0.1)).descend(), "needs a closure"),
        (lambda: SAM(torch.optim.SGD(params, lr=0.1)).set_rho(-0.1), "rho must be"),
        (lambda: ASAM(torch.optim.SGD(params, lr=0.1), eta=-1, scale_biases=True), "eta must"),
    ]
    for call, words in cases:
        with pytest.raises(InputError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)


# --- clipping, accumulation, memory, compiling ------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.0, 0.2])
def test_clipping_acts_on_the_descent_gradient(rho: float) -> None:
    x, y = batch()
    plain, clipped = net(norm=True), net(norm=True)
    one = SAM(torch.optim.SGD(plain.parameters(), lr=1.0), rho=rho)
    two = SAM(torch.optim.SGD(clipped.parameters(), lr=1.0), rho=rho, clip_grad_norm=1e-2)
    before = weights(plain)
    one.step(closure_of(one, plain, x, y))
    two.step(closure_of(two, clipped, x, y))
    full = torch.cat([(a - b).flatten() for a, b in zip(weights(plain), before, strict=True)])
    short = torch.cat([(a - b).flatten() for a, b in zip(weights(clipped), before, strict=True)])
    assert short.norm().item() == pytest.approx(1e-2, rel=1e-3)
    torch.testing.assert_close(short / short.norm(), full / full.norm(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("sizes", [[6, 6, 6, 6], [10, 10, 4]])
def test_micro_batches_equal_the_whole_batch(sizes: list[int]) -> None:
    x, y = batch()
    whole, parts = net(), net()
    one = SAM(torch.optim.SGD(whole.parameters(), lr=0.1, momentum=0.9), rho=0.3)
    two = SAM(torch.optim.SGD(parts.parameters(), lr=0.1, momentum=0.9), rho=0.3)
    micro = list(zip(x.split(sizes), y.split(sizes), strict=True))
    for _ in range(3):
        a = one.step(closure_of(one, whole, x, y))
        b = two.step(accumulated_closure(two, lambda part: F.cross_entropy(parts(part[0]), part[1]), micro))
        assert b.item() == pytest.approx(a.item(), rel=1e-6)
    for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)


def test_micro_batches_with_class_weights_and_bad_parts() -> None:
    x, y = batch()
    class_weights = torch.tensor([0.2, 1.0, 5.0, 2.0], dtype=torch.float64)
    whole, split = net(), net()
    one, two = (SAM(torch.optim.SGD(m.parameters(), lr=0.1), rho=0.3) for m in (whole, split))
    micro = [{"x": a, "y": b} for a, b in zip(x.split(9), y.split(9), strict=True)]
    one.step(closure_over(one, lambda: F.cross_entropy(whole(x), y, class_weights)))
    two.step(
        accumulated_closure(
            two,
            lambda part: F.cross_entropy(split(part["x"]), part["y"], class_weights),
            micro,
            weights=[float(class_weights[part["y"]].sum()) for part in micro],
        )
    )
    for p, q in zip(whole.parameters(), split.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)

    def never(part: object) -> Tensor:
        raise AssertionError

    for bad, words in (([], "empty"), ([3], "cannot count"), ([torch.ones(())], "no batch dimension")):
        with pytest.raises(InputError, match=words):
            accumulated_closure(two, never, bad)
    with pytest.raises(InputError, match="1 weights"):
        accumulated_closure(two, never, micro, weights=[1.0])
    with pytest.raises(InputError, match="must not be negative"):
        accumulated_closure(two, never, micro, weights=[1.0, -1.0, 1.0])


@pytest.mark.parametrize("adaptive", [False, True])
def test_memory_beyond_the_base_is_one_copy_of_the_weights(adaptive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    from saddlescape.optim import perturb

    monkeypatch.setattr(perturb, "CHUNK_BYTES", 4 * 1000)

    class Peak(TorchDispatchMode):
        """Counts the bytes of live tensors made inside, by their storages."""

        def __init__(self) -> None:
            super().__init__()
            self.live: dict[int, int] = {}
            self.peak = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            import weakref

            known = {
                t.untyped_storage().data_ptr() for t in torch.utils._pytree.tree_leaves(args) if torch.is_tensor(t)
            }
            out = func(*args, **(kwargs or {}))
            for tensor in torch.utils._pytree.tree_leaves(out):
                if torch.is_tensor(tensor) and tensor.untyped_storage().data_ptr() not in known:
                    key = id(tensor)
                    self.live[key] = tensor.untyped_storage().nbytes()
                    weakref.finalize(tensor, self.live.pop, key, None)
            self.peak = max(self.peak, sum(self.live.values()))
            return out

    params = [nn.Parameter(torch.randn(1000)) for _ in range(50)]
    optimizer = SAM(torch.optim.SGD(params, lr=0.1), rho=0.1, adaptive=adaptive)
    for p in params:
        p.grad = torch.ones_like(p)
    with Peak() as counted:
        optimizer.ascend()
    copy_bytes = sum(p.nbytes for p in params)
    assert copy_bytes <= counted.peak <= copy_bytes + 4 * 4 * 1000 + 4 * 4 * len(params)
    optimizer.restore()


@pytest.mark.parametrize("what", ["the network", "the ascent"])
def test_compiled_steps_are_the_eager_ones(what: str) -> None:
    x, y = batch()
    results = []
    for compiled in (False, True):
        model = net(norm=True)
        network = torch.compile(model, backend="eager") if compiled and what == "the network" else model
        optimizer = SAM(sgd(model), rho=0.2, model=network)
        ascend = torch.compile(optimizer.ascend, backend="eager") if compiled and network is model else optimizer.ascend
        closure = closure_of(optimizer, network, x, y)
        for _ in range(3):
            closure()
            ascend()
            closure()
            optimizer.descend()
        results.append(weights(model) + list(model.buffers()))
    torch.testing.assert_close(results[0], results[1], rtol=1e-6, atol=1e-7)
