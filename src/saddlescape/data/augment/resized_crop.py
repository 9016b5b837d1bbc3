"""Random resized crop (Inception style) for images of natural size; antialiased bilinear, Pillow's to a level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saddlescape.errors import InputError

ATTEMPTS = 10
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


@dataclass(frozen=True)
class ResizedCrop:
    """Cut out a random box of 8 to 100 percent of the area, aspect 3/4 to 4/3, and scale it to ``size`` x ``size``.

    Boxes are drawn as torchvision's ``RandomResizedCrop`` draws them: ten attempts, then the largest centred box of
    a legal aspect. uint8 [N, C, H, W] -> uint8 [N, C, size, size].
    """

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"ResizedCrop needs size >= 1, got {self.size}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return resized_crop(images, self.draw(len(images), images.shape[2], images.shape[3], generator), self.size)

    def draw(self, count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Boxes (top, left, height, width), int64 [N, 4]."""
        uniform = torch.rand((4, count, ATTEMPTS), generator=generator, dtype=torch.float64)
        area = height * width * (SCALE[0] + uniform[0] * (SCALE[1] - SCALE[0]))
        low, high = math.log(RATIO[0]), math.log(RATIO[1])
        ratio = torch.exp(low + uniform[1] * (high - low))
        wide, high_ = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
        legal = (wide > 0) & (wide <= width) & (high_ > 0) & (high_ <= height)
        top = (uniform[2] * (height - high_ + 1)).floor().long()
        left = (uniform[3] * (width - wide + 1)).floor().long()
        boxes = torch.stack((top, left, high_, wide), dim=-1)  # [N, attempts, 4]
        first = legal.to(torch.uint8).argmax(1)  # the first legal attempt: argmax takes the first of equals
        chosen = boxes[torch.arange(count), first]
        return torch.where(legal.any(1, keepdim=True), chosen, torch.tensor(self._fallback(height, width)))

    def box(self, uniform: Sequence[Sequence[float]], height: int, width: int) -> tuple[int, int, int, int]:
        """The box of one image (top, left, height, width) from numbers in [0, 1), [4, 10]: the rule of ``draw``."""
        low, high = math.log(RATIO[0]), math.log(RATIO[1])
        for for_area, for_ratio, for_top, for_left in zip(*uniform, strict=True):
            area = height * width * (SCALE[0] + for_area * (SCALE[1] - SCALE[0]))
            ratio = math.exp(low + for_ratio * (high - low))
            wide, high_ = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < wide <= width and 0 < high_ <= height:
                top, left = math.floor(for_top * (height - high_ + 1)), math.floor(for_left * (width - wide + 1))
                return top, left, high_, wide
        top, left, high_, wide = self._fallback(height, width)
        return top, left, high_, wide

    def _fallback(self, height: int, width: int) -> list[int]:
        wide, high = width, height
        if width / height < RATIO[0]:
            high = round(width / RATIO[0])
        elif width / height > RATIO[1]:
            wide = round(height * RATIO[1])
        return [(height - high) // 2, (width - wide) // 2, high, wide]


def resized_crop(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Scale box n (top, left, height, width) of image n to ``size`` x ``size``; as ``crop().resize(BILINEAR)``.

    Resampling along one axis is a matrix with a triangle of weights in every row, so a batch of different boxes is
    two batched matrix products. Deviation: 1. Pillow rounds to whole levels between the two axes; we round once.
    """
    top, left, height, width = boxes.to(images.device).unbind(1)
    rows = _triangles(top, height, images.shape[2], size)
    columns = _triangles(left, width, images.shape[3], size)
    scaled = rows.unsqueeze(1) @ images.float() @ columns.unsqueeze(1).transpose(2, 3)
    return scaled.round_().clamp_(0, 255).to(torch.uint8)


def _triangles(start: Tensor, length: Tensor, source: int, target: int) -> Tensor:
    """float32 [N, target, source]: weights that scale ``length[n]`` pixels from ``start[n]`` on."""
    scale = (length.double() / target).view(-1, 1, 1)
    support = scale.clamp(min=1)
    centre = (torch.arange(target, device=start.device).view(-1, 1) + 0.5) * scale + start.view(-1, 1, 1)
    pixel = torch.arange(source, device=start.device)
    weight = (1 - ((pixel + 0.5 - centre) / support).abs()).clamp(min=0)
    inside = (pixel >= start.view(-1, 1, 1)) & (pixel < (start + length).view(-1, 1, 1))
    weight = weight * inside
    return (weight / weight.sum(2, keepdim=True)).float()
