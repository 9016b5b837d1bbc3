"""A class loss and a contrastive loss side by side: BCL (Zhu et al., CVPR 2022) and ProCo (Du et al., TPAMI 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from saddlescape.data.types import Batch
from saddlescape.errors import InputError
from saddlescape.losses import BalancedContrastiveLoss, ProCoLoss
from saddlescape.losses.base import ClassLoss
from saddlescape.training.objective import Classify, EpochFacts, Losses

KINDS = ("proco", "bcl")


class Contrastive(Classify):
    """``classify_weight`` times the class loss on the main view + ``weight`` times a contrastive loss on further views.

    All views of a batch go through the network together, so that BatchNorm sees them as one batch, as in both published
    codes. Without further views the main one is contrasted: a third of the cost. The contrastive loss is a mean over
    images and their views, added to the mean of the class loss.

    Args:
        class_counts: training images per class, [C].
        model: with a head that projects: "contrastive", or "bcl" (with class prototypes, which BCL needs).
        kind: "proco" or "bcl".
        weight: of the contrastive loss; 0 leaves it, and the further views, out.
        classify_weight: of the class loss.
        temperature: of the contrastive loss.

    ProCo's running means take in each whole batch once, on the first pass over it, and are part of the state. In a part
    of a batch (optimisers that split it) images are contrasted with that part; a part of one image has no contrastive
    loss, because of the projection's BatchNorm.
    """

    per_image = False

    def __init__(
        self,
        loss: ClassLoss,
        *,
        class_counts: Sequence[int],
        model: nn.Module,
        kind: str = "proco",
        weight: float = 1.0,
        classify_weight: float = 1.0,
        temperature: float = 0.1,
    ) -> None:
        super().__init__(loss)
        if kind not in KINDS:
            raise InputError(f"objective contrastive: kind is {kind!r}; it must be one of {', '.join(KINDS)}")
        if weight < 0 or classify_weight < 0:
            raise InputError("objective contrastive: weight and classify_weight must not be negative")
        head: Any = model.head
        if weight and not hasattr(head, "project"):
            raise InputError("objective contrastive needs a head that projects: head = 'contrastive' or 'bcl'")
        if weight and kind == "bcl" and not hasattr(head, "prototypes"):
            raise InputError("objective contrastive: kind bcl needs class prototypes: head = 'bcl'")
        self.kind, self.weight, self.classify_weight = kind, weight, classify_weight
        self.contrast: ProCoLoss | BalancedContrastiveLoss | None = None
        if weight and kind == "bcl":
            self.contrast = BalancedContrastiveLoss(class_counts, temperature)
        elif weight:
            self.contrast = ProCoLoss(class_counts, int(head.projection_dim), temperature)
        self._unseen: list[Tensor] = []

    def begin_epoch(self, facts: EpochFacts) -> None:
        if isinstance(self.contrast, ProCoLoss):
            self.contrast.start_epoch()

    def prepare(self, batch: Batch) -> Batch:
        if isinstance(self.contrast, ProCoLoss):
            self._unseen.append(batch.indices)
        return batch

    def forward(self, model: Any, batch: Batch) -> Losses:
        images = len(batch.targets)
        views = batch.views if self.contrast is not None else ()
        seen = model.features(torch.cat((batch.inputs, *views)) if views else batch.inputs)
        features = seen[:images]
        plain = self.classify(model.head(features), batch, features)
        losses = plain.per_sample if self.classify_weight == 1 else self.classify_weight * plain.per_sample
        added = self._contrasts(model, batch, seen)
        if added is not None:
            added = self.weight * plain.normaliser / images * added
            losses = losses + added
        if self.keep_features:
            self._features, self._added = features, added
        return plain._replace(per_sample=losses)

    def reclassify(self, model: Any, batch: Batch, subset: Tensor) -> Tensor:
        """The class loss anew; the contrastive one, which hardly sees the classifier, as it was."""
        losses = self.classify_weight * super().reclassify(model, batch, subset)
        return losses if self._added is None else losses + self._added.index_select(0, subset)

    def _contrasts(self, model: Any, batch: Batch, seen: Tensor) -> Tensor | None:
        """Contrastive losses [N] of a batch from the features of all its views, one after the other."""
        images = len(batch.targets)
        if self.contrast is None or len(seen) < 2:
            return None
        points = model.head.project(seen)
        points = (points[images:] if batch.views else points).unflatten(0, (-1, images)).transpose(0, 1)
        if isinstance(self.contrast, BalancedContrastiveLoss):
            return self.contrast.per_sample(points, batch.targets, model.head.prototypes())
        return self.contrast.per_sample(points, batch.targets, observe=self._first_pass(batch))

    def _first_pass(self, batch: Batch) -> bool:
        """Whether this whole batch is seen for the first time; a part of one has indices of its own."""
        for position, indices in enumerate(self._unseen):
            if indices is batch.indices:
                del self._unseen[: position + 1]
                return True
        return False
