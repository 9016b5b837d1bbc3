"""Label-aware smoothing: Zhong et al., "Improving Calibration for Long-Tailed Recognition" (MiSLAS), CVPR 2021."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from saddlescape.counts import ClassCounts, check_class_counts
from saddlescape.errors import InputError
from saddlescape.losses.base import ClassLoss, Normalization, Reduction

Shape = Literal["concave", "linear", "convex", "exponential"]
Spread = Literal["all", "others"]


class LabelAwareSmoothingLoss(ClassLoss):
    """Label smoothing that is stronger for frequent classes: eps_y from ``smooth_tail`` up to ``smooth_head``.

    Args:
        class_counts: training images per class, [C].
        smooth_head, smooth_tail: smoothing of the largest and of the smallest class, in [0, 1].
        shape: how eps grows with r = (n - n_min) / (n_max - n_min): "concave" sin(pi r / 2), "linear" r,
            "convex" 1 - cos(pi r / 2), "exponential" r^power.
        power: exponent of "exponential".
        spread: where eps goes. "all": the mean of -log p over all C classes, the true one included, as the published
            code has it. "others": over the C - 1 other classes, as the paper's formula has it.
        weight, reduction, normalization: see ``ClassLoss``.

    Deviations from the MiSLAS code: where all classes are of one size, r is 0 / 0 there; here all get ``smooth_tail``.

    Raises:
        InputError: a class without images; a smoothing out of range; an unknown shape; bad logits or targets.
    """

    def __init__(
        self,
        class_counts: ClassCounts,
        smooth_head: float,
        smooth_tail: float,
        shape: Shape = "concave",
        *,
        power: float = 2.0,
        spread: Spread = "all",
        weight: Tensor | None = None,
        reduction: Reduction = "mean",
        normalization: Normalization = "weights",
    ) -> None:
        counts = check_class_counts(class_counts)
        super().__init__(len(counts), weight=weight, reduction=reduction, normalization=normalization)
        if spread not in ("all", "others"):
            raise InputError(f"spread is {spread!r}; it must be 'all' or 'others'")
        self.smooth_head, self.smooth_tail = float(smooth_head), float(smooth_tail)
        self.shape, self.power, self.spread = shape, float(power), spread
        self._hold("smoothing", smoothing_curve(counts, smooth_head, smooth_tail, shape, power))

    def class_losses(self, logits: Tensor, features: Tensor | None = None) -> Tensor:
        losses = -F.log_softmax(logits, dim=1)
        smoothing = self._constant("smoothing", logits)
        total = losses.sum(dim=1, keepdim=True)
        if self.spread == "all":
            rest = total / losses.shape[1]
        else:
            rest = (total - losses) / (losses.shape[1] - 1)
        return (1 - smoothing) * losses + smoothing * rest


def smoothing_curve(
    class_counts: ClassCounts, smooth_head: float, smooth_tail: float, shape: Shape = "concave", power: float = 2.0
) -> Tensor:
    """Smoothing per class, float64 [C]; see ``LabelAwareSmoothingLoss``."""
    counts = check_class_counts(class_counts)
    for name, value in (("smooth_head", smooth_head), ("smooth_tail", smooth_tail)):
        if not 0 <= value <= 1:
            raise InputError(f"{name} is {value}; a smoothing lies between 0 and 1")
    if not power > 0:
        raise InputError(f"power is {power}; it must be above 0")
    span = counts.max() - counts.min()
    ratio = (counts - counts.min()) / span if span > 0 else torch.zeros_like(counts)
    curves = {
        "concave": torch.sin(math.pi / 2 * ratio),
        "linear": ratio,
        "convex": 1 - torch.cos(math.pi / 2 * ratio),
        "exponential": ratio**power,
    }
    if shape not in curves:
        raise InputError(f"shape is {shape!r}; it must be one of {', '.join(curves)}")
    return smooth_tail + (smooth_head - smooth_tail) * curves[shape]
