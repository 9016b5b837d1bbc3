"""Focal loss: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, for softmax classifiers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from saddlescape.errors import InputError
from saddlescape.losses.base import ClassLoss, Normalization, Reduction


class FocalLoss(ClassLoss):
    """l = (1 - p_y)^gamma * (-log p_y), averaged over the samples.

    Args:
        gamma: 0 is cross-entropy; 1 in the LDAM-DRW code's scripts, 2 in the paper.
        weight: class weights [C] (the paper's alpha), outside of the modulating factor.
        weighted_probability: take p = exp(-w_y * CE) in the factor, as the LDAM-DRW code does.
        reduction, normalization: see ``ClassLoss``; "samples" by default here, as in every published code.

    Deviations from the LDAM-DRW code's ``focal_loss``: with class weights that code has the factor
    1 - exp(-w_y CE); ``weighted_probability=True`` gives it.

    Raises:
        InputError: gamma below 0; bad logits or targets.
    """

    def __init__(
        self,
        gamma: float = 1.0,
        weight: Tensor | None = None,
        *,
        weighted_probability: bool = False,
        num_classes: int | None = None,
        reduction: Reduction = "mean",
        normalization: Normalization = "samples",
    ) -> None:
        super().__init__(num_classes, weight=weight, reduction=reduction, normalization=normalization)
        if not gamma >= 0:
            raise InputError(f"gamma is {gamma}; it must be 0 or more")
        self.gamma = float(gamma)
        self.weighted_probability = weighted_probability

    def class_losses(self, logits: Tensor, features: Tensor | None = None) -> Tensor:
        losses = -F.log_softmax(logits, dim=1)
        inside = losses
        if self.weighted_probability and self.weight is not None:
            inside = losses * self._weight_like(logits, logits.dtype)
        return focal_factor(inside, self.gamma) * losses


def focal_factor(cross_entropy: Tensor, gamma: float) -> Tensor:
    """(1 - p)^gamma from -log p, any shape.

    Below the resolution of the dtype 1 - p is held at it: powers of an exact zero have infinite derivatives, and the
    loss there is zero to working precision either way.
    """
    miss = (-torch.expm1(-cross_entropy)).clamp(min=torch.finfo(cross_entropy.dtype).eps)
    return miss**gamma
