"""What can go wrong in the middle of an epoch: numbers that are no longer finite, and images that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from saddlescape.data.types import Batch
from saddlescape.errors import InputError
from saddlescape.training.parts import Parts
from saddlescape.training.precision import Precision
from saddlescape.training.running import Running

Save = Callable[[int, Running | None], None]


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


def salvaging(batches: Iterator[Batch], parts: Parts, epoch: int, running: Running, save: Save) -> Iterator[Batch]:
    """The same batches; where the loader fails, ``save(epoch, running)`` is called before its error goes on its way.

    A damaged file, a worker that was killed: the loader raises between two steps, so what ``running`` counts is a
    state like any other to go on from, also with all batches done and the test images broken. With several processes
    nothing is saved, since the others do not know.

    Raises:
        InputError: the loader's, in one line, with what to do.
    """
    try:
        yield from batches
    except InputError as error:
        if not (parts.ranks.alone and running.batch and all_finite(parts.model)):
            raise
        try:
            save(epoch, running)
        except InputError:
            raise error from None  # a full disk besides: the checkpoint before it is still there
        raise InputError(f"{error}; all steps done are saved: then run the same command again") from error
