"""An objective maps (model, batch) to per-sample losses and a normaliser; nothing is averaged too early."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from saddlescape.data.types import Batch
from saddlescape.losses.base import ClassLoss


class Losses(NamedTuple):
    """``per_sample`` [N] carries the sample weights; the loss of a batch is ``sum(per_sample) / normaliser``."""

    per_sample: Tensor
    normaliser: Tensor | float
    logits: Tensor  # [N, C], for the running training accuracy

    def mean(self) -> Tensor:
        return self.per_sample.sum() / self.normaliser


class Objective(Protocol):
    loss: ClassLoss

    def __call__(self, model: Callable[[Tensor], Tensor], batch: Batch) -> Losses: ...

    def normaliser(self, batch: Batch) -> Tensor | float:
        """What the sum of this batch's losses is divided by, known before any forward pass."""
        ...


class Classify:
    """The ordinary objective: a class loss around one forward pass."""

    def __init__(self, loss: ClassLoss, normalization: str = "weights") -> None:
        self.loss = loss
        self.normalization = normalization

    def __call__(self, model: Any, batch: Batch) -> Losses:
        features = None
        if self.loss.needs_features:
            features = model.features(batch.inputs)
            logits = model.head(features)
        else:
            logits = model(batch.inputs)
        losses, weights = self.loss.terms(logits.float(), batch.targets, features)
        return Losses(losses, weights.sum() if self.normalization == "weights" else float(len(losses)), logits)

    def normaliser(self, batch: Batch) -> Tensor | float:
        if self.normalization == "weights":
            return self.loss.sample_weights(batch.targets).sum()
        return float(len(batch.targets))


OBJECTIVES: dict[str, Callable[..., Objective]] = {"classify": Classify}
"""Objectives by name; a method adds its own with one line here and one file."""
