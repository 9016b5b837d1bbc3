"""One training step: forward, loss, backward, move. SAM's second pass is inside ``optimizer.step``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from saddlescape.data.types import Batch
from saddlescape.parallel.ranks import ALONE, Ranks
from saddlescape.training.objective import Losses, Objective
from saddlescape.training.precision import Precision


def train_step(
    objective: Objective,
    model: Callable[[Tensor], Tensor],
    optimizer: torch.optim.Optimizer,
    batches: Sequence[Batch],
    precision: Precision,
    step_options: dict[str, Any],
    eager: Callable[[Tensor], Tensor] | None = None,
    ranks: Ranks = ALONE,
) -> list[Losses]:
    """Move the weights once, from one batch or from several micro-batches whose sums are accumulated.

    The loss of the step is ``sum of all weighted losses / sum of all normalisers``, however it was cut into
    micro-batches. Returns the losses at w (not at the perturbed point), one entry a micro-batch, detached; the
    optimisers that never see the whole batch at w (PartialSAM) give those of the pass over the whole batch.
    ``eager`` is the model for parts of a batch, where ``model`` is compiled for whole ones.

    With several processes ``batches`` are this one's parts and the losses returned are theirs; gradients are those of
    all parts together, but for SAM's first pass, which climbs this process's own unless ``ranks.sync_ascent``.
    """
    if getattr(optimizer, "per_sample", False):
        return _split_step(objective, model, eager or model, optimizer, batches, precision, step_options, ranks)
    first: list[Losses] = []
    two_passes = getattr(optimizer, "passes_per_step", 1) > 1
    images = sum(len(batch.targets) for batch in batches)

    def closure() -> Tensor:
        objective.ascent = two_passes and not first
        optimizer.zero_grad(set_to_none=True)
        seen: list[Losses] = []
        total: Tensor | float | None = None
        if not ranks.alone:
            total = images
        elif len(batches) > 1:
            total = _normaliser(objective, batches)
        value: Tensor | None = None
        for batch in batches:
            with precision.autocast():
                losses = objective(model, batch)
            part = losses.per_sample.sum() / (losses.normaliser if total is None else total * ranks.copies(batch))
            backward(part)
            value = part.detach() if value is None else value + part.detach()
            seen.append(_detached(losses))
        if not ranks.alone and (ranks.sync_ascent or not objective.ascent):
            value = _average(ranks, optimizer, images, seen, batches)
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


def _split_step(
    objective: Objective,
    model: Callable[[Tensor], Tensor],
    eager: Callable[[Tensor], Tensor],
    optimizer: Any,
    batches: Sequence[Batch],
    precision: Precision,
    step_options: dict[str, Any],
    ranks: Ranks,
) -> list[Losses]:
    """The step of an optimiser that splits losses by class: its closure returns the vector of them, [N].

    Their mean is the loss of the step: each is the weighted loss times N over the sum of the normalisers. With several
    processes the mean over them of their means is.
    """
    whole: list[Losses] = []
    starts = [0]
    for batch in batches:
        starts.append(starts[-1] + len(batch.targets))
    scales = _scales(objective, batches, starts[-1], ranks)
    objective.keep_features = wants_features = bool(getattr(optimizer, "reclassifies", False))

    def closure(subset: Tensor | None = None) -> Tensor:
        vectors: list[Tensor] = []
        passed: list[Losses] = []
        for number, batch in enumerate(batches):
            if subset is not None:
                inside = subset[(subset >= starts[number]) & (subset < starts[number + 1])] - starts[number]
                if len(inside) == 0:
                    continue
                batch = select(batch, inside)
            with precision.autocast():
                losses = objective(model if subset is None else eager, batch)
            vectors.append(losses.per_sample * scales[number])
            passed.append(_detached(losses))
        if subset is None and not whole:
            whole.extend(passed)
        return torch.cat(vectors)

    def reclassify(subset: Tensor) -> Tensor:
        with precision.autocast():
            return objective.reclassify(model, batches[0], subset) * scales[0]

    options = dict(step_options)
    if wants_features and len(batches) == 1:
        options["reclassify"] = reclassify
    optimizer.step(closure, targets=torch.cat([batch.targets for batch in batches]), **options)
    scaler: torch.amp.GradScaler | None = step_options.get("scaler")
    if scaler is not None:
        scaler.update()
    return whole


def select(batch: Batch, index: Tensor) -> Batch:
    """The images ``index`` (int64 [K], sorted or not) of a batch, with their views and partners."""
    return Batch(
        batch.inputs.index_select(-4, index),
        batch.targets.index_select(0, index),
        batch.indices.index_select(0, index),
        tuple(view.index_select(-4, index) for view in batch.views),
        None if batch.partner is None else select(batch.partner, index),
    )


def _scales(objective: Objective, batches: Sequence[Batch], images: int, ranks: Ranks) -> list[Tensor | float]:
    """For each micro-batch the factor of its losses, with which their mean is the loss of the step."""
    if ranks.alone:
        return [images / _normaliser(objective, batches)] * len(batches)
    copies = [ranks.copies(batch) for batch in batches]
    own = [objective.normaliser(batch) / count for batch, count in zip(batches, copies, strict=True)]
    device = batches[0].targets.device
    total = ranks.sum(torch.stack([torch.as_tensor(part, dtype=torch.float64, device=device) for part in own]).sum())
    return [images * ranks.size / (total * count) for count in copies]


def _average(
    ranks: Ranks, optimizer: torch.optim.Optimizer, images: int, seen: Sequence[Losses], batches: Sequence[Batch]
) -> Tensor:
    """Make the gradients of this process's mean loss those of the loss of all processes' batches; returns that."""
    sums = [(part.per_sample.sum(), part.normaliser, ranks.copies(b)) for part, b in zip(seen, batches, strict=True)]
    loss = torch.stack([loss / copies for loss, _, copies in sums]).sum()
    return ranks.average(optimizer, images, loss, sum(normaliser / copies for _, normaliser, copies in sums))


def _detached(losses: Losses) -> Losses:
    return Losses(losses.per_sample.detach(), losses.normaliser, losses.logits.detach())


def _normaliser(objective: Objective, batches: Sequence[Batch]) -> Tensor | float:
    parts = [objective.normaliser(batch) for batch in batches]
    return sum(parts[1:], start=parts[0])
