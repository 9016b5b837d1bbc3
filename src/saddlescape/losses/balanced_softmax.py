"""Balanced softmax: Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020."""

from __future__ import annotations

from torch import Tensor

from saddlescape.counts import ClassCounts, check_class_counts
from saddlescape.losses.base import Normalization, Reduction
from saddlescape.losses.cross_entropy import CrossEntropyLoss


class BalancedSoftmaxLoss(CrossEntropyLoss):
    """Cross-entropy of z + log n. The constant log N cancels, so it equals ``LogitAdjustedLoss`` with tau = 1.

    Args:
        class_counts: training images per class, [C].
        weight, reduction, normalization: see ``ClassLoss``.

    Deviations from the BalancedMetaSoftmax code: none in value.

    Raises:
        InputError: a class without images; bad logits or targets.
    """

    def __init__(
        self,
        class_counts: ClassCounts,
        weight: Tensor | None = None,
        *,
        reduction: Reduction = "mean",
        normalization: Normalization = "weights",
    ) -> None:
        counts = check_class_counts(class_counts)
        super().__init__(len(counts), weight=weight, reduction=reduction, normalization=normalization)
        # Relative to the largest class: the same softmax, with smaller numbers to round.
        self._hold("offset", (counts / counts.max()).log())

    def adjust(self, logits: Tensor) -> Tensor:
        return logits + self._constant("offset", logits)
