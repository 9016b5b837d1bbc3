"""The colours of SimCLR's views: jitter with hue for most pictures, grey for some (Chen et al., ICML 2020)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saddlescape.data.augment import tone
from saddlescape.data.augment.compose import check_images
from saddlescape.data.augment.ops import apply_grouped
from saddlescape.errors import InputError

_NAMES = ("brightness", "contrast", "color")
_HUE = 3


@dataclass(frozen=True)
class SimCLRColors:
    """With probability ``jitter``: brightness, contrast, saturation and hue in random order; then, with probability
    ``grey``: grey in all channels. uint8 [N, C, H, W] -> uint8 [N, C, H, W].

    Factors of the first three are even in ``1 - strength .. 1 + strength``, the hue moves by up to ``hue`` turns of the
    circle of colours. The numbers are those of the contrastive views of BCL and ProCo: torchvision's
    ``RandomApply([ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8)`` and ``RandomGrayscale(0.2)``. Hue does not touch pictures of
    one channel.

    Deviation: the hue is moved in floating point and rounded once, there in Pillow's 8-bit HSV.
    """

    strength: float = 0.4
    hue: float = 0.1
    jitter: float = 0.8
    grey: float = 0.2

    def __post_init__(self) -> None:
        if not all(0 <= value <= 1 for value in (self.strength, self.jitter, self.grey)) or not 0 <= self.hue <= 0.5:
            raise InputError(f"SimCLRColors needs numbers in [0, 1] and hue in [0, 0.5], got {self}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        check_images(images)
        count = len(images)
        order = torch.rand((count, 4), generator=generator).argsort(1)
        strength = torch.tensor([self.strength] * 3 + [self.hue], dtype=torch.float64)
        change = (torch.rand((count, 4), generator=generator, dtype=torch.float64) * 2 - 1) * strength
        chance = torch.rand((2, count), generator=generator)
        order[chance[0] >= self.jitter] = -1
        images = simclr_jitter(images, order, change)
        grey = (chance[1] < self.grey).to(images.device).view(-1, 1, 1, 1)
        return torch.where(grey, tone.grey(images), images)


def simclr_jitter(images: Tensor, order: Tensor, change: Tensor) -> Tensor:
    """Brightness 0, contrast 1, saturation 2 (factor - 1) and hue 3 (turns) of picture n, by ``change[n]`` [4] and in
    the order ``order[n]`` [4]; -1 does nothing."""
    for step in range(4):
        choice = order[:, step]
        amount = change.gather(1, choice.clamp(min=0)[:, None]).squeeze(1)
        images = apply_grouped(images, _NAMES, choice.masked_fill(choice == _HUE, -1), amount)
        turned = (choice == _HUE).nonzero().squeeze(1)
        if len(turned) and images.shape[1] == 3:
            at = turned.to(images.device)
            images.index_copy_(0, at, turn_hue(images.index_select(0, at), amount[turned]))
    return images


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] with the hue of picture n moved by ``turns[n]`` of the circle; value and chroma stay."""
    pixels = images.float()
    value, chroma = pixels.amax(1), pixels.amax(1) - pixels.amin(1)
    red, green, blue = pixels.unbind(1)
    safe = torch.where(chroma > 0, chroma, 1.0)
    sixths = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sixths = sixths + 6 * turns.to(images.device, torch.float32).view(-1, 1, 1)
    # A channel is `value` within a sixth of a circle of its own hue, and falls to value - chroma over the next sixth.
    channels = []
    for offset in (5.0, 3.0, 1.0):
        place = (sixths + offset) % 6
        channels.append(value - chroma * torch.minimum(place, 4 - place).clamp(0, 1))
    return torch.stack(channels, 1).round_().clamp_(0, 255).to(torch.uint8)
