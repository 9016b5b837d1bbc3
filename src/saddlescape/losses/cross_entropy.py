"""Cross-entropy, plain or with class weights."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from saddlescape.losses.base import ClassLoss


class CrossEntropyLoss(ClassLoss):
    """l = -z_y + log sum_j exp(z_j). With hard labels the same numbers as ``torch.nn.CrossEntropyLoss``.

    It is also the base of every loss that only adjusts the logits first (``adjust``).

    Deviations from ``torch.nn.CrossEntropyLoss``:

    1. soft labels with class weights: "mean" divides by the sum of the weights, as for hard labels (torch divides
       by N there); ``normalization="samples"`` is torch's value;
    2. there is no ``ignore_index``: a negative label is an error.
    """

    def adjust(self, logits: Tensor) -> Tensor:
        """What the softmax sees in place of the logits, [N, C] -> [N, C]."""
        return logits

    def class_losses(self, logits: Tensor, features: Tensor | None = None) -> Tensor:
        return -F.log_softmax(self.adjust(logits), dim=1)

    def hard_losses(self, logits: Tensor, target: Tensor, features: Tensor | None = None) -> Tensor:
        return F.cross_entropy(self.adjust(logits), target, reduction="none")
