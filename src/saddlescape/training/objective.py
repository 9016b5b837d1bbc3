"""An objective maps (model, batch) to per-sample losses and a normaliser; nothing is averaged too early."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from saddlescape.data.types import Batch
from saddlescape.errors import InputError
from saddlescape.losses.base import ClassLoss


class Losses(NamedTuple):
    """``per_sample`` [N] carries the sample weights; the loss of a batch is ``sum(per_sample) / normaliser``."""

    per_sample: Tensor
    normaliser: Tensor | float
    logits: Tensor  # [N, C], for the running training accuracy

    def mean(self) -> Tensor:
        return self.per_sample.sum() / self.normaliser


@dataclass(frozen=True)
class EpochFacts:
    """What an objective may know when an epoch begins.

    ``features()`` gives what the head sees of every training image, un-augmented and in eval mode, with the labels:
    (float32 [N, d], int64 [N]); it costs a forward pass over the training set.
    """

    epoch: int
    epochs: int
    model: nn.Module
    features: Callable[[], tuple[Tensor, Tensor]]


class Objective(nn.Module):
    """Base of all objectives. Its parameters are trained beside the model's, its state is kept in checkpoints.

    A subclass says what a batch costs in ``forward(model, batch) -> Losses`` and what the sum of these losses is
    divided by in ``normaliser(batch)``, known before any forward pass.
    """

    ascent: bool = False
    """Whether this pass only finds SAM's ascent direction; set by the step."""
    keep_features: bool = False
    """Whether to keep what the head saw, for ``reclassify``; set by the step for the optimisers that ask for it."""

    views_needed: ClassVar[int] = 0
    """How many further views of each image a batch must carry."""
    needs_partner: ClassVar[bool] = False
    """Whether a batch must carry a second one."""
    per_image: ClassVar[bool] = True
    """Whether a batch's loss is a sum over its images, none looking at another, so that processes may share a batch."""

    def __init__(self, loss: ClassLoss) -> None:
        super().__init__()
        self.loss = loss

    def begin_epoch(self, facts: EpochFacts) -> None:
        """Told before the first batch of every epoch (not again when an epoch is resumed in its middle)."""

    def prepare(self, batch: Batch) -> Batch:
        """Once a step, before any pass: what all passes of the step then share, e.g. the mix of two images.

        Random draws come from torch's global generator, whose state checkpoints keep.
        """
        return batch

    def normaliser(self, batch: Batch) -> Tensor | float:
        """What the sum of this batch's losses is divided by."""
        if self.loss.normalization == "weights":
            return self.loss.sample_weights(batch.targets).sum()
        return float(len(batch.targets))

    def reclassify(self, model: Any, batch: Batch, subset: Tensor) -> Tensor:
        """Losses [len(subset)] of some images of the last forward pass from the features it computed.

        Raises:
            InputError: an objective whose losses do not come from one classifier on one set of features.
        """
        raise InputError(f"{type(self).__name__} cannot classify kept features again; use another optimiser or loss")


def at_least_float32(tensor: Tensor) -> Tensor:
    """Half precision, as autocast leaves it, to float32; float32 and float64 as they are."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()


class Classify(Objective):
    """The ordinary objective: a class loss around one forward pass."""

    def forward(self, model: Any, batch: Batch) -> Losses:
        features = None
        if self.loss.needs_features or self.keep_features:
            features = model.features(batch.inputs)
            logits = model.head(features)
            self._features = features if self.keep_features else None
        else:
            logits = model(batch.inputs)
        return self.classify(logits, batch, features)

    def classify(self, logits: Tensor, batch: Batch, features: Tensor | None = None) -> Losses:
        """The class loss of logits [N, C], from ``features`` [N, d] where the loss needs them."""
        losses, weights = self.loss.terms(at_least_float32(logits), batch.targets, features)
        return Losses(losses, weights.sum() if self.loss.normalization == "weights" else float(len(losses)), logits)

    def reclassify(self, model: Any, batch: Batch, subset: Tensor) -> Tensor:
        assert self._features is not None
        features = self._features.index_select(0, subset)
        return self.loss.terms(at_least_float32(model.head(features)), batch.targets[subset], features)[0]
