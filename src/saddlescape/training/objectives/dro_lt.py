"""DRO-LT's representation stage: Samuel and Chechik, "Distributional Robustness Loss for Long-tail Learning",
ICCV 2021."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from saddlescape.data.types import Batch
from saddlescape.errors import InputError
from saddlescape.losses import DROLTLoss
from saddlescape.losses.base import ClassLoss
from saddlescape.training.objective import Classify, EpochFacts, Losses

_ROWS = 8192  # features widened at a time


class DROLT(Classify):
    """The class loss of the stage + ``robust_weight`` times the robust loss around the centroids of the classes.

    Centroids are the class means of the features of all training images, un-augmented and in eval mode, taken anew at
    the beginning of every epoch. The robust loss (``saddlescape.losses.DROLTLoss``) compares the images of a batch
    with each other; with accumulation these are the images of each micro-batch. Its radii ``eps`` [C] are trained
    along with the network.

    Args:
        class_counts: training images per class, [C].
        model: for the length of its features.
        temperature, form, radius: of the robust loss.
        robust_weight: 1 in the published code.

    Buffer: ``centroids`` [C, d], so that training resumes in the middle of an epoch with the same bits.

    Deviation from the DRO-LT code: there centroids come from the augmented and re-sampled images of the loader.
    """

    per_image = False
    centroids: Tensor

    def __init__(
        self,
        loss: ClassLoss,
        *,
        class_counts: Sequence[int],
        model: nn.Module,
        temperature: float = 1.0,
        form: Literal["paper", "code"] = "paper",
        radius: float = 1.0,
        robust_weight: float = 1.0,
    ) -> None:
        super().__init__(loss)
        if robust_weight < 0:
            raise InputError(f"objective dro-lt: robust_weight is {robust_weight:g}; it must not be negative")
        self.robust = DROLTLoss(class_counts, temperature, form, radius=radius)
        self.robust_weight = robust_weight
        self.register_buffer("centroids", torch.zeros(len(class_counts), _feature_dim(model)))

    def begin_epoch(self, facts: EpochFacts) -> None:
        features, labels = facts.features()
        self.centroids.copy_(class_means(features, labels, len(self.centroids)))

    def forward(self, model: Any, batch: Batch) -> Losses:
        features = model.features(batch.inputs)
        plain = self.classify(model.head(features), batch, features)
        if self.keep_features:
            self._features = features
        losses, weights = self.robust.terms(features, batch.targets, self.centroids)
        share = self.robust_weight * plain.normaliser / weights.sum()
        return plain._replace(per_sample=plain.per_sample + share * losses)


def class_means(features: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Mean features [C, d] of each class from features [N, d] and labels [N]; zeros for a class without images."""
    wide = features.dtype if features.device.type == "mps" else torch.float64
    sums = torch.zeros(classes, features.shape[1], dtype=wide, device=features.device)
    for part, owners in zip(features.split(_ROWS), labels.split(_ROWS), strict=True):
        sums.index_add_(0, owners, part.to(wide))
    return sums / torch.bincount(labels, minlength=classes).clamp(min=1)[:, None]


def _feature_dim(model: Any) -> int:
    return int(model.feature_dim)
