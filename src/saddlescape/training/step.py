"""One training step: forward, loss, backward, move. SAM's second pass is inside ``optimizer.step``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from saddlescape.data.types import Batch
from saddlescape.training.objective import Losses, Objective
from saddlescape.training.precision import Precision


def train_step(
    objective: Objective,
    model: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    precision: Precision,
    step_options: dict[str, Any],
) -> list[Losses]:
    """Move the weights once, from one batch or from several micro-batches whose sums are accumulated.

    The loss of the step is ``sum of all weighted losses / sum of all normalisers``, however it was cut into
    micro-batches. Returns the losses at w (not at the perturbed point), one entry a micro-batch, detached.
    """
    first: list[Losses] = []

    def closure() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        seen: list[Losses] = []
        total = None if len(batches) == 1 else _normaliser(objective, batches)
        value: Tensor | None = None
        for batch in batches:
            with precision.autocast():
                losses = objective(model, batch)
            part = losses.per_sample.sum() / (losses.normaliser if total is None else total)
            backward(part)
            value = part.detach() if value is None else value + part.detach()
            seen.append(Losses(losses.per_sample.detach(), losses.normaliser, losses.logits.detach()))
        if not first:
            first.extend(seen)
        assert value is not None
        return value

    scaler: torch.amp.GradScaler | None = step_options.get("scaler")

    def backward(loss: Tensor) -> None:
        (loss if scaler is None else scaler.scale(loss)).backward()

    optimizer.step(closure, **step_options)  # type: ignore[arg-type]  # torch types the loss as float, and takes any
    if scaler is not None:
        scaler.update()  # once a step, whatever number of passes it took
    return first


def _normaliser(objective: Objective, batches: Sequence[Batch]) -> Tensor | float:
    parts = [objective.normaliser(batch) for batch in batches]
    return sum(parts[1:], start=parts[0])
