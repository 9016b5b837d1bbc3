"""The running sums of an epoch: loss, accuracy, images and time, so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saddlescape.data.types import Batch
from saddlescape.training.objective import Losses


@dataclass
class Running:
    """Sums over the part of an epoch that is done, at the unperturbed weights; kept on the device until asked."""

    batch: int = 0
    images: int = 0
    loss: Tensor | float = 0.0
    normaliser: Tensor | float = 0.0
    correct: Tensor | float = 0.0
    seconds: float = 0.0

    @torch.no_grad()
    def add(self, losses: Sequence[Losses], batches: Sequence[Batch]) -> None:
        for part, batch in zip(losses, batches, strict=True):
            hard = batch.targets if batch.targets.ndim == 1 else batch.targets.argmax(dim=1)
            self.images += len(hard)
            self.loss = self.loss + part.per_sample.double().sum()
            self.normaliser = self.normaliser + part.normaliser
            self.correct = self.correct + (part.logits.argmax(dim=1) == hard).sum()

    def mean_loss(self) -> float:
        return float(self.loss) / max(float(self.normaliser), 1e-12)

    def state(self) -> dict[str, float | int]:
        return {name: value if isinstance(value, int) else float(value) for name, value in vars(self).items()}
