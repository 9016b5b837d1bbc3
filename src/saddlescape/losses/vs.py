"""VS, vector scaling: Kini et al., "Label-Imbalanced and Group-Sensitive Classification under Overparameterization",
NeurIPS 2021."""

from __future__ import annotations

from torch import Tensor

from saddlescape.counts import ClassCounts, check_class_counts
from saddlescape.losses.base import Normalization, Reduction
from saddlescape.losses.cross_entropy import CrossEntropyLoss


class VSLoss(CrossEntropyLoss):
    """Cross-entropy of z_j / D_j + iota_j, with D_j = (n_max / n_j)^gamma and iota_j = tau log(n_j / N).

    gamma = 0 is logit adjustment, tau = 0 is the CDT loss. Ordinary linear head; predictions use the raw logits.

    Args:
        class_counts: training images per class, [C].
        gamma, tau: 0.3 and 1.0 are the defaults of the published code; its CIFAR-10 example has 0.2 and 1.2.
        weight, reduction, normalization: see ``ClassLoss``.

    Deviations from the VS-Loss code: none in value. The paper multiplies logits by 1 / D, the code divides by D.

    Raises:
        InputError: a class without images; bad logits or targets.
    """

    def __init__(
        self,
        class_counts: ClassCounts,
        gamma: float = 0.3,
        tau: float = 1.0,
        weight: Tensor | None = None,
        *,
        reduction: Reduction = "mean",
        normalization: Normalization = "weights",
    ) -> None:
        counts = check_class_counts(class_counts)
        super().__init__(len(counts), weight=weight, reduction=reduction, normalization=normalization)
        self.gamma, self.tau = float(gamma), float(tau)
        self._hold("divisor", (counts.max() / counts) ** self.gamma)
        self._hold("offset", self.tau * (counts / counts.sum()).log())

    def adjust(self, logits: Tensor) -> Tensor:
        return logits / self._constant("divisor", logits) + self._constant("offset", logits)
