"""Flip and colour jitter of one picture at a time, by Pillow: to the bit what the steps make of a whole batch.

On a CPU Pillow does them in a fifth of the time that batches of tensors take; on a GPU the batch is faster. Since both
give the same pixels from the same draws, a loader may choose.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from saddlescape.data.augment import Augment, ColorJitter, Compose, CropFlip

Draws = list[tuple[Tensor, Tensor, Tensor]]
"""What each step has drawn for a batch, as its ``draw`` gives it."""

_ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)


@dataclass(frozen=True)
class Finish:
    """``steps`` in order, each a flip (``CropFlip`` without padding) or a ``ColorJitter``."""

    steps: tuple[CropFlip | ColorJitter, ...]

    @classmethod
    def of(cls, augment: Augment | None) -> Finish | None:
        """The same as ``augment``; None where it holds another step."""
        steps = augment.steps if isinstance(augment, Compose) else () if augment is None else (augment,)
        known = tuple(step for step in steps if isinstance(step, ColorJitter) or _is_flip(step))
        return cls(known) if len(known) == len(steps) else None  # type: ignore[arg-type]

    def draw(self, count: int, generator: torch.Generator) -> Draws:
        """The draws of a batch of ``count`` pictures, in the order in which the batch form makes them."""
        draws: Draws = []
        for step in self.steps:
            if isinstance(step, ColorJitter):
                order, change = step.draw(count, generator)
                draws.append((order, change, order))
            else:
                draws.append(step.draw(count, generator))
        return draws

    def apply(self, picture: Image.Image, draws: Draws, row: int) -> Image.Image:
        """Picture ``row`` of the batch, mode ``L`` or ``RGB``."""
        for step, drawn in zip(self.steps, draws, strict=True):
            if isinstance(step, ColorJitter):
                order, change = drawn[0][row].tolist(), drawn[1][row].tolist()
                for which in order:
                    picture = _ENHANCERS[which](picture).enhance(1 + change[which])
            elif bool(drawn[2][row]):
                picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return picture


def _is_flip(step: Augment) -> bool:
    return isinstance(step, CropFlip) and step.padding == 0
