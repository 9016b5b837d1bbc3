"""LDAM: Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019."""

from __future__ import annotations

import warnings
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from saddlescape.counts import ClassCounts, check_class_counts
from saddlescape.errors import InputError
from saddlescape.losses.base import ClassLoss, Normalization, Reduction
from saddlescape.losses.targets import values_readable


class LDAMLoss(ClassLoss):
    """Cross-entropy of s * (z - Delta_y onehot(y)) with margins Delta_c = max_margin * (n_min / n_c)^(1/4).

    The logits are cosines in [-1, 1] (``saddlescape.models.CosineHead``); predictions are their plain argmax.

    Args:
        class_counts: training images per class, [C].
        max_margin: margin of the rarest class; 0.5 on CIFAR, 0.3 on ImageNet-LT and iNaturalist 2018.
        scale: s.
        weight, reduction, normalization: see ``ClassLoss``.

    Warns once if the first batch of logits leaves [-1, 1]: on a plain linear head the margin means nothing.

    Deviations from the LDAM-DRW code's ``losses.py``: none in value with hard labels. Soft labels, which that code does
    not take, give the mixture of the hard losses, each with its own class's margin.

    Raises:
        InputError: a class without images; a margin or scale out of range; bad logits or targets.
    """

    uses_cosine_head: ClassVar[bool] = True

    def __init__(
        self,
        class_counts: ClassCounts,
        max_margin: float = 0.5,
        scale: float = 30.0,
        weight: Tensor | None = None,
        *,
        reduction: Reduction = "mean",
        normalization: Normalization = "weights",
    ) -> None:
        counts = check_class_counts(class_counts)
        super().__init__(len(counts), weight=weight, reduction=reduction, normalization=normalization)
        if not max_margin >= 0:
            raise InputError(f"max_margin is {max_margin}; it must be 0 or more")
        if not scale > 0:
            raise InputError(f"scale is {scale}; it must be above 0")
        self.max_margin, self.scale = float(max_margin), float(scale)
        self.logit_scale = self.scale
        self._hold("margins", max_margin * (counts.min() / counts) ** 0.25)
        self._looked_at_range = False

    def hard_losses(self, logits: Tensor, target: Tensor, features: Tensor | None = None) -> Tensor:
        self._look_at_range(logits)
        margins = self._constant("margins", logits)
        shift = torch.zeros_like(logits).scatter(1, target[:, None], margins[target][:, None])
        return F.cross_entropy(self.scale * (logits - shift), target, reduction="none")

    def class_losses(self, logits: Tensor, features: Tensor | None = None) -> Tensor:
        """All C losses at the cost of one softmax.

        With p = softmax(s z) and m_c = s Delta_c, the loss under label c is
        -log p_c + m_c + log(1 - p_c + p_c exp(-m_c)). The log of 1 - p_c is taken from p_c where that is at most a
        half, and from the other logits for the largest entry, where 1 - p_c would cancel.
        """
        self._look_at_range(logits)
        scaled = self.scale * logits
        shift = self.scale * self._constant("margins", logits)
        log_p = F.log_softmax(scaled, dim=1)
        largest = torch.zeros_like(scaled, dtype=torch.bool).scatter(1, scaled.argmax(dim=1, keepdim=True), True)
        log_rest = log_p.masked_fill(largest, -torch.inf).logsumexp(dim=1, keepdim=True)
        log_others = torch.where(largest, log_rest, torch.log1p(-log_p.exp().masked_fill(largest, 0.0)))
        # Not logaddexp: where its arguments are far apart its second derivative is NaN.
        return -log_p + shift + torch.stack((log_others, log_p - shift)).logsumexp(dim=0)

    def _look_at_range(self, logits: Tensor) -> None:
        """Once, on the first batch: reading a value makes the host wait for an accelerator."""
        if self._looked_at_range or not values_readable() or logits.is_meta or not logits.numel():
            return
        if logits.is_cuda and torch.cuda.is_current_stream_capturing():
            return
        self._looked_at_range = True
        largest = float(logits.detach().abs().max())
        if largest > 1 + 1e-3:
            warnings.warn(
                f"LDAM expects cosines in [-1, 1] but a logit is {largest:.3g} in size: use the cosine head "
                "(build_model(..., head='cosine') or saddlescape.models.CosineHead)",
                UserWarning,
                stacklevel=2,
            )
