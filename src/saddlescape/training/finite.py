"""Numbers that are no longer finite: found at once, told in one line with the likely cause."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from saddlescape.errors import InputError
from saddlescape.training.precision import Precision


@torch.no_grad()
def all_finite(model: nn.Module) -> bool:
    """Whether every weight and buffer is finite; waits for the device once.

    The loss of a step is computed before the step moves the weights: the last step of an epoch can spoil them with
    every loss still finite.
    """
    floating = (tensor for tensor in _tensors(model) if tensor.is_floating_point() and tensor.numel())
    largest = [tensor.detach().abs().amax().double() for tensor in floating]
    return not largest or bool(torch.stack(largest).isfinite().all())


def _tensors(model: nn.Module) -> Iterable[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def not_finite(what: str, epoch: int, step: int, lr: float, rho: float | None, precision: Precision) -> InputError:
    """``what`` (the loss, the weights) is not finite in 0-based ``epoch`` after ``step`` steps."""
    causes = [f"the learning rate {lr:g} may be too large"]
    if rho:
        causes.insert(0, f"rho {rho:g} may be too large for this stage of training")
    if precision.name == "fp16":
        causes.append("fp16 may overflow (try --precision bf16 or float32)")
    return InputError(
        f"{what} no longer finite at epoch {epoch + 1}, step {step}: {'; or '.join(causes)}. "
        "The last good checkpoint is kept; start a new run with a smaller value"
    )
