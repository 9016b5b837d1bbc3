"""Mixup (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019) within the batch."""

from __future__ import annotations

import torch

from saddlescape.data.augment.mix import cutmix, cutmix_box, draw_lambda, mixup, one_hot
from saddlescape.data.types import Batch
from saddlescape.errors import InputError
from saddlescape.losses.base import ClassLoss
from saddlescape.training.objective import Classify


class Mixup(Classify):
    """Classify convex mixtures: lam ~ Beta(alpha, alpha), x = lam x_i + (1 - lam) x_j, labels alike; one lam a batch.

    Args:
        alpha: of the Beta distribution.
        kind: "mixup", or "cutmix" (a box of the other image; labels by the area that is left).
    """

    def __init__(
        self,
        loss: ClassLoss,
        alpha: float = 1.0,
        kind: str = "mixup",
    ) -> None:
        super().__init__(loss)
        if kind not in ("mixup", "cutmix"):
            raise InputError(f"objective mixup: kind is {kind!r}; it must be mixup or cutmix")
        if not alpha > 0:
            raise InputError(f"objective mixup: alpha is {alpha:g}; it must be above 0")
        self.alpha, self.kind = alpha, kind

    def prepare(self, batch: Batch) -> Batch:
        classes = self.loss.num_classes
        assert classes is not None
        generator = torch.default_generator
        lam = draw_lambda(self.alpha, generator)
        other = torch.randperm(len(batch.targets), generator=generator).to(batch.targets.device)
        labels = one_hot(batch.targets, classes)
        if self.kind == "mixup":
            inputs = mixup(batch.inputs, batch.inputs[other], lam)
        else:
            box = cutmix_box(batch.inputs.shape[-2], batch.inputs.shape[-1], lam, generator)
            inputs, lam = cutmix(batch.inputs, batch.inputs[other], box)
        return batch._replace(inputs=inputs, targets=mixup(labels, labels[other], lam))
