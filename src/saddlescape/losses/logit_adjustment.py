"""Logit adjustment: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021."""

from __future__ import annotations

from torch import Tensor

from saddlescape.counts import ClassCounts, check_class_counts
from saddlescape.errors import InputError
from saddlescape.losses.base import Normalization, Reduction
from saddlescape.losses.cross_entropy import CrossEntropyLoss


class LogitAdjustedLoss(CrossEntropyLoss):
    """Cross-entropy of z + tau log(n / N). Predictions use the raw logits.

    Args:
        class_counts: training images per class, [C].
        tau: strength; 1 is Bayes-consistent for the balanced error.
        weight, reduction, normalization: see ``ClassLoss``.

    Deviations from google-research's ``logit_adjustment``: tau log(pi) in place of log(pi^tau + 1e-12), which differs
    by less than 1e-6 as long as pi^tau is above 1e-6.

    Raises:
        InputError: a class without images; bad logits or targets.
    """

    def __init__(
        self,
        class_counts: ClassCounts,
        tau: float = 1.0,
        weight: Tensor | None = None,
        *,
        reduction: Reduction = "mean",
        normalization: Normalization = "weights",
    ) -> None:
        counts = check_class_counts(class_counts)
        super().__init__(len(counts), weight=weight, reduction=reduction, normalization=normalization)
        self.tau = float(tau)
        self._hold("offset", self.tau * (counts / counts.sum()).log())

    def adjust(self, logits: Tensor) -> Tensor:
        return logits + self._constant("offset", logits)


def post_hoc_adjust(logits: Tensor, class_counts: ClassCounts, tau: float = 1.0) -> Tensor:
    """Adjust the logits [..., C] of a network trained with plain cross-entropy: z - tau log(n / N), then argmax.

    Raises:
        InputError: a class without images, or another number of classes than the logits have.
    """
    counts = check_class_counts(class_counts)
    if logits.shape[-1] != len(counts):
        raise InputError(f"logits have {logits.shape[-1]} columns but class_counts lists {len(counts)} classes")
    return logits - (tau * (counts / counts.sum()).log()).to(logits.device, logits.dtype)
