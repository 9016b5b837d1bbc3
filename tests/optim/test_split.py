"""What optimisers that split losses by class ask of a closure, of labels, and of a compiled network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from family import COUNTS, Run, batch, build, net, same_bits, sgd, weights
from torch import Tensor
from torch.amp import GradScaler
from torch.nn import functional as F

from saddlescape.errors import InputError
from saddlescape.optim import SSESAM, ClassConditionalSAM, FocalSAM, ImbSAM, PartialSAM


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


def test_bad_input_is_one_line() -> None:
    model = net()
    x, y = batch()
    optimizer = build("imbsam", model)
    run = Run(model, x, y)

    def losses() -> Tensor:
        return F.cross_entropy(model(x), y, reduction="none")

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
        (lambda: ClassConditionalSAM(sgd(model), COUNTS, model.head, phi=2), "phi must"),
        (lambda: ClassConditionalSAM(sgd(model), COUNTS, model.drop), "head must be"),
        (lambda: ClassConditionalSAM(sgd(model), COUNTS, list(model.parameters())), "head must be"),  # type: ignore[arg-type]
        (lambda: ClassConditionalSAM(sgd(model), COUNTS, net().head), "head must be"),
    ]
    for call, words in cases:
        before = weights(model)
        with pytest.raises(InputError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert same_bits(before, weights(model))
    run.step(optimizer)
