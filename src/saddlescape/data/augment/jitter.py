"""Random colours: the jitter of ImageNet's recipes, and that of SimCLR's views with hue and grey."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from saddlescape.data.augment import tone
from saddlescape.data.augment.ops import NAMES, apply_grouped

_ADJUSTMENTS = torch.tensor([NAMES.index(name) for name in ("brightness", "contrast", "color", "hue")])
_ENHANCERS = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
STRENGTH, HUE = 0.4, 0.1


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast and saturation by factors even in 0.6 .. 1.4; each image has its own, in its own order.

    As torchvision's ``ColorJitter(0.4, 0.4, 0.4, hue=0)`` on Pillow images, its saturation being our ``color``.
    """

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return jitter(images, *self.draw(len(images), generator))

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Order int64 [N, 3] of brightness 0, contrast 1, saturation 2, and factor - 1 of each, float64 [N, 3]."""
        order = torch.rand((count, 3), generator=generator).argsort(1)
        return order, (torch.rand((count, 3), generator=generator, dtype=torch.float64) * 2 - 1) * STRENGTH

    def on_image(self, image: Image.Image, drawn: tuple[Tensor, ...], row: int) -> Image.Image:
        """What the batch form makes of image ``row``, to the bit, by Pillow."""
        order, change = (values[row].tolist() for values in drawn)
        for which in order:
            image = _ENHANCERS[which](image).enhance(1 + change[which])
        return image


@dataclass(frozen=True)
class SimCLRColors:
    """In 80 % of the images brightness, contrast, saturation and hue in random order; then 20 % become grey.

    The numbers are those of the contrastive views of BCL and ProCo (Chen et al., ICML 2020): torchvision's
    ``RandomApply([ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8)`` and ``RandomGrayscale(0.2)``. Hue leaves images of one
    channel alone. Deviation: see ``tone.hue``.
    """

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        count = len(images)
        order = torch.rand((count, 4), generator=generator).argsort(1)
        strength = torch.tensor([STRENGTH] * 3 + [HUE], dtype=torch.float64)
        change = (torch.rand((count, 4), generator=generator, dtype=torch.float64) * 2 - 1) * strength
        chance = torch.rand((2, count), generator=generator)
        order[chance[0] >= 0.8] = -1
        images = jitter(images, order, change)
        grey = (chance[1] < 0.2).to(images.device).view(-1, 1, 1, 1)
        return torch.where(grey, tone.grey(images), images)


def jitter(images: Tensor, order: Tensor, change: Tensor) -> Tensor:
    """Adjust image n by ``change[n]`` [K] in the order ``order[n]`` [K]; -1 does nothing.

    Column 0 is brightness, 1 contrast, 2 saturation (factor - 1) and 3, if there, hue (turns).
    """
    for which in order.unbind(1):
        at = which.clamp(min=0)
        choice = torch.where(which >= 0, _ADJUSTMENTS[at], -1)
        images = apply_grouped(images, choice, change.gather(1, at[:, None]).squeeze(1))
    return images
