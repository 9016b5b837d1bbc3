"""A closure that runs a batch in parts: gradient accumulation for optimisers that look at the batch twice."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from saddlescape.errors import InputError

Part = TypeVar("Part")


def accumulated_closure(
    optimizer: Optimizer,
    loss_fn: Callable[[Part], Tensor],
    parts: Sequence[Part],
    *,
    weights: Sequence[float] | None = None,
    model: nn.Module | None = None,
    scaler: GradScaler | None = None,
) -> Callable[[], Tensor]:
    """A closure for ``optimizer.step`` whose gradient is that of the whole batch, run part by part.

    The loss is ``sum_k weight_k * loss_fn(part_k) / sum_k weight_k``. A weight is the number of samples of the part
    (the length of its first tensor) unless given, which makes a mean over samples come out as the mean over the whole
    batch, a shorter last part included. Where ``loss_fn`` averages with class weights, give the sums of those
    weights. Every pass of the optimiser runs all the parts, so for SAM the ascent is that of the whole batch too.
    Layers that look across the batch (BatchNorm) see one part at a time, as in any accumulation.

    Args:
        parts: kept until the step is over, since every pass needs them again.
        model: a model in DistributedDataParallel; then gradients are exchanged in the last part of each pass only.
        scaler: scales each part's loss; give the same one to ``optimizer.step``.

    Returns the closure; it returns the weighted loss, detached, 0-dim.

    Raises:
        InputError: no parts, or weights that do not fit them or do not add up to a positive number.
    """
    if not parts:
        raise InputError("accumulated_closure: parts is empty; give at least one micro-batch")
    sizes = [float(_length(part)) for part in parts] if weights is None else [float(weight) for weight in weights]
    if len(sizes) != len(parts):
        raise InputError(
            f"accumulated_closure: {len(parts)} parts but {len(sizes)} weights; give one weight for each part"
        )
    total = sum(sizes)
    if not total > 0 or min(sizes) < 0:
        raise InputError(
            f"accumulated_closure: weights must not be negative and must add up to more than 0, got {sizes}"
        )

    def closure() -> Tensor:
        optimizer.zero_grad()
        whole: Tensor | None = None
        for number, (part, size) in enumerate(zip(parts, sizes, strict=True)):
            wait = number < len(parts) - 1 and hasattr(model, "no_sync")
            with model.no_sync() if wait else contextlib.nullcontext():  # type: ignore[union-attr, operator]
                loss = loss_fn(part) * (size / total)
                (loss if scaler is None else scaler.scale(loss)).backward()
            whole = loss.detach() if whole is None else whole + loss.detach()
        assert whole is not None
        return whole

    return closure


def _length(part: Any) -> int:
    first = part
    while not isinstance(first, Tensor):
        if isinstance(first, dict) and first:
            first = next(iter(first.values()))
        elif isinstance(first, (tuple, list)) and first:
            first = first[0]
        else:
            raise InputError(f"accumulated_closure: cannot count the samples of a {type(part).__name__}; give weights=")
    if first.dim() == 0:
        raise InputError("accumulated_closure: the first tensor of a part has no batch dimension; give weights=")
    return len(first)
