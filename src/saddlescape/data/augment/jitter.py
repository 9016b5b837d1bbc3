"""Colour jitter: brightness, contrast and saturation by random factors, in random order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saddlescape.data.augment.compose import check_images
from saddlescape.data.augment.ops import apply_grouped
from saddlescape.errors import InputError

_NAMES = ("brightness", "contrast", "color")


@dataclass(frozen=True)
class ColorJitter:
    """Factors are even in ``1 - strength .. 1 + strength``; each picture has its own factors and its own order.

    As torchvision's ``ColorJitter(b, c, s, hue=0)`` on Pillow images, its saturation being our ``color``.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4

    def __post_init__(self) -> None:
        if not all(0 <= strength <= 1 for strength in (self.brightness, self.contrast, self.saturation)):
            raise InputError(f"ColorJitter needs strengths in [0, 1], got {self}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        check_images(images)
        order, change = self.draw(len(images), generator)
        return color_jitter(images, order, change)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Order int64 [N, 3] of brightness 0, contrast 1, saturation 2, and factor - 1 of each, float64 [N, 3]."""
        order = torch.rand((count, 3), generator=generator).argsort(1)
        strength = torch.tensor([self.brightness, self.contrast, self.saturation], dtype=torch.float64)
        change = (torch.rand((count, 3), generator=generator, dtype=torch.float64) * 2 - 1) * strength
        return order, change


def color_jitter(images: Tensor, order: Tensor, change: Tensor) -> Tensor:
    """Apply to picture n its three adjustments ``change[n]`` in the order ``order[n]``."""
    for step in range(3):
        choice = order[:, step]
        images = apply_grouped(images, _NAMES, choice, change.gather(1, choice[:, None]).squeeze(1))
    return images
