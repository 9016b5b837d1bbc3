"""CC-SAM's second stage: Zhou et al., "Class-Conditional Sharpness-Aware Minimization for Deep Long-Tailed
Recognition", CVPR 2023."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saddlescape.data.types import Batch
from saddlescape.errors import InputError
from saddlescape.losses.base import ClassLoss
from saddlescape.training.objective import Classify, EpochFacts, Losses, at_least_float32


class AdversarialFeatures(Classify):
    """Classify features that were moved uphill, the further the rarer their class.

    With features h_i, classifier losses l, and v_c = log(n_max / n_c + 0.01) / divisor, of a batch::

        G_i  = d/dh_i of sum over the classes in the batch of the class's mean loss
        h'_i = h_i + strength v_y G_i / ||G over the images of class y||     (constants: no gradient through G)
        L    = a mean_i v_y l(h'_i) + (1 - a) mean_i l(h_i),    a = min((t + 1) / T, cap),  t = 0, 1, ... of T epochs

    Args:
        class_counts: training images per class, [C].
        cap: largest a; 1 for CIFAR-10-LT and 0.3 for CIFAR-100-LT in the published configurations.
        strength: of the move; 1.
        divisor: 2.

    Buffer: ``share``, a of the present epoch.

    Deviation from the CC-SAM code: one gradient and one pass for all classes, there one of each per class; the value is
    the same because the features of one class do not depend on those of another.
    """

    per_image = False
    share: Tensor
    class_weight: Tensor

    def __init__(
        self,
        loss: ClassLoss,
        *,
        class_counts: Sequence[int],
        cap: float = 1.0,
        strength: float = 1.0,
        divisor: float = 2.0,
    ) -> None:
        super().__init__(loss)
        if not 0 <= cap <= 1:
            raise InputError(f"objective adversarial-features: cap is {cap:g}; it must lie between 0 and 1")
        if strength < 0 or not divisor > 0:
            raise InputError(
                f"objective adversarial-features: strength is {strength:g} and divisor {divisor:g}; "
                "they must be at least 0 and above 0"
            )
        self.cap, self.strength = cap, strength
        counts = torch.tensor(list(class_counts), dtype=torch.float64)
        self._exact_weight = (counts.max() / counts + 0.01).log() / divisor
        self.register_buffer("class_weight", self._exact_weight.float(), persistent=False)
        self.register_buffer("share", torch.zeros(()))

    def begin_epoch(self, facts: EpochFacts) -> None:
        self.share.fill_(min((facts.epoch + 1) / facts.epochs, self.cap))

    def forward(self, model: Any, batch: Batch) -> Losses:
        features = model.features(batch.inputs)
        if not features.requires_grad:  # a frozen backbone
            features = features.detach().requires_grad_()
        if self.keep_features:
            self._features = features
        plain = self.classify(model.head(features), batch, features)
        weight = self._exact_weight if plain.per_sample.dtype == torch.float64 else self.class_weight
        weight = weight.to(plain.per_sample)[batch.targets]
        moved = features.detach() + self._uphill(plain.per_sample, features, batch.targets, weight)
        moved = moved + (features - features.detach())  # the value of `moved`; gradients as if the move were constant
        hard = self.classify(model.head(moved), batch, moved)
        share = self.share.to(weight.dtype)
        return plain._replace(per_sample=share * weight * hard.per_sample + (1 - share) * plain.per_sample)

    def _uphill(self, losses: Tensor, features: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        """Moves [N, d] of the features."""
        classes = len(self.class_weight)
        size = torch.bincount(targets, minlength=classes)[targets]
        (gradient,) = torch.autograd.grad((losses / size).sum(), features, retain_graph=True)
        gradient = at_least_float32(gradient)
        squares = gradient.new_zeros(classes).index_add_(0, targets, gradient.square().sum(dim=1))
        length = squares.sqrt()[targets]
        factor = self.strength * weight / torch.where(length > 0, length, 1.0)
        return (factor[:, None] * gradient).to(features.dtype)
