"""The running sums of an epoch: loss, accuracy, images and time, so far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saddlescape.data.types import Batch
from saddlescape.parallel.ranks import ALONE, Ranks
from saddlescape.training.objective import Losses


@dataclass
class Running:
    """Sums over the part of an epoch that is done, at the unperturbed weights; kept on the device until asked.

    With several processes they are those of all of them, in each.
    """

    batch: int = 0
    images: Tensor | int = 0
    loss: Tensor | float = 0.0
    normaliser: Tensor | float = 0.0
    correct: Tensor | float = 0.0
    seconds: float = 0.0

    @torch.no_grad()
    def add(self, losses: Sequence[Losses], batches: Sequence[Batch], ranks: Ranks = ALONE) -> None:
        """Count one step in: its losses at w and its batches, this rank's shard of them."""
        if not ranks.alone:
            self._add_all(losses, batches, ranks)
            return
        for part, batch in zip(losses, batches, strict=True):
            hard = batch.targets if batch.targets.ndim == 1 else batch.targets.argmax(dim=1)
            self.images += len(hard)
            self.loss = self.loss + part.per_sample.double().sum()
            self.normaliser = self.normaliser + part.normaliser
            self.correct = self.correct + (part.logits.argmax(dim=1) == hard).sum()

    def _add_all(self, losses: Sequence[Losses], batches: Sequence[Batch], ranks: Ranks) -> None:
        mine: dict[str, Tensor | float] = dict.fromkeys(("loss", "normaliser", "correct", "images"), 0.0)
        for part, batch in zip(losses, batches, strict=True):
            one = Running()
            one.add([part], [batch])
            share = 1 / ranks.copies(batch)  # images that several processes have count once
            for name in mine:
                mine[name] = mine[name] + share * getattr(one, name)
        device = losses[0].per_sample.device
        numbers = [torch.as_tensor(value, dtype=torch.float64, device=device) for value in mine.values()]
        sums = ranks.sum(torch.stack(numbers))
        self.loss, self.normaliser = self.loss + sums[0], self.normaliser + sums[1]
        self.correct, self.images = self.correct + sums[2].round(), self.images + sums[3].round()

    def mean_loss(self) -> float:
        return float(self.loss) / max(float(self.normaliser), 1e-12)

    def state(self) -> dict[str, float | int]:
        plain = {name: value if isinstance(value, int) else float(value) for name, value in vars(self).items()}
        return plain | {"images": int(self.images)}
