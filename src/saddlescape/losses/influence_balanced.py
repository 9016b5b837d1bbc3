"""IB: Park et al., "Influence-Balanced Loss for Imbalanced Visual Classification", ICCV 2021."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from saddlescape.counts import ClassCounts, check_class_counts, inverse_frequency_weights
from saddlescape.errors import InputError
from saddlescape.losses.base import ClassLoss, Normalization, Reduction
from saddlescape.losses.focal import focal_factor


class InfluenceBalancedLoss(ClassLoss):
    """Cross-entropy divided by a sample's influence on the head: l = alpha / (a + epsilon) * CE.

    a = ||softmax(z) - onehot(y)||_1 * ||h||_1 with h the features that the head saw; gradients flow through a.
    The published recipe trains with plain cross-entropy for the first half of the epochs.

    Args:
        class_counts: training images per class, [C].
        alpha: 1000 in the published scripts.
        epsilon: 0.001, keeps the factor finite.
        focal_gamma: an extra factor (1 - p_y)^focal_gamma; 1 in the published IB + focal.
        weighted_probability: take p = exp(-w_y * CE) in that factor, as the IB-Loss code does.
        weight: class weights [C]; inverse frequency if None. ``set_weight(None)`` removes them.
        reduction, normalization: see ``ClassLoss``; "samples" by default here, as in the published code.

    Called as ``loss(logits, target, features=h)``, h [N, d] (its L1 norms [N, 1] do as well).

    Deviations from the IB-Loss code: 1. ||softmax - onehot||_1 is computed as 2 (1 - p_y), which it equals; 2. with
    class weights its focal factor is 1 - exp(-w_y CE); ``weighted_probability=True`` gives it.

    Raises:
        InputError: a class without images; no features; bad logits or targets.
    """

    needs_features: ClassVar[bool] = True

    def __init__(
        self,
        class_counts: ClassCounts,
        alpha: float = 1000.0,
        epsilon: float = 1e-3,
        focal_gamma: float = 0.0,
        weight: Tensor | None = None,
        *,
        weighted_probability: bool = False,
        reduction: Reduction = "mean",
        normalization: Normalization = "samples",
    ) -> None:
        counts = check_class_counts(class_counts)
        if weight is None:
            weight = inverse_frequency_weights(counts)
        super().__init__(len(counts), weight=weight, reduction=reduction, normalization=normalization)
        if not (alpha > 0 and epsilon > 0):
            raise InputError(f"alpha is {alpha} and epsilon {epsilon}; both must be above 0")
        if not focal_gamma >= 0:
            raise InputError(f"focal_gamma is {focal_gamma}; it must be 0 or more")
        self.alpha, self.epsilon, self.focal_gamma = float(alpha), float(epsilon), float(focal_gamma)
        self.weighted_probability = weighted_probability

    def class_losses(self, logits: Tensor, features: Tensor | None = None) -> Tensor:
        if features is None or features.ndim != 2 or len(features) != len(logits):
            shape = None if features is None else list(features.shape)
            raise InputError(f"features must be [{len(logits)}, d], what the head saw for each sample, got {shape}")
        entropy = -F.log_softmax(logits, dim=1)
        influence = -2 * torch.expm1(-entropy) * features.abs().sum(dim=1, keepdim=True)
        losses = self.alpha / (influence + self.epsilon) * entropy
        if self.focal_gamma:
            if self.weighted_probability and self.weight is not None:
                entropy = entropy * self._weight_like(logits, logits.dtype)
            losses = losses * focal_factor(entropy, self.focal_gamma)
        return losses
