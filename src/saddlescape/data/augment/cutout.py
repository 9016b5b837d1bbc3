"""Cutout (DeVries and Taylor, arXiv 1708.04552): black out one square."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saddlescape.data.augment.compose import check_images
from saddlescape.errors import InputError


@dataclass(frozen=True)
class Cutout:
    """Set one ``length`` x ``length`` square to ``fill``; its centre is any pixel, so it may overhang the border.

    Rows ``y - length // 2 .. y + length // 2 - 1`` are cut, as in the authors' code (an odd length cuts one less).
    Deviation: 1. we cut pixels, before normalisation, so the hole is black (``fill=0``) and not the mean colour, as
    it is where the hole is cut into the normalised tensor; give the mean grey as ``fill`` for that.
    """

    length: int = 16
    fill: int = 0

    def __post_init__(self) -> None:
        if self.length < 0 or not 0 <= self.fill <= 255:
            raise InputError(f"Cutout needs length >= 0 and fill in 0..255, got {self.length} and {self.fill}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        check_images(images)
        count, _, height, width = images.shape
        row = torch.randint(0, height, (count,), generator=generator).to(images.device)
        column = torch.randint(0, width, (count,), generator=generator).to(images.device)
        return cutout(images, row, column, self.length, self.fill)


def cutout(images: Tensor, row: Tensor, column: Tensor, length: int, fill: int = 0) -> Tensor:
    """Cut the square around (``row[n]``, ``column[n]``), int64 [N], out of picture n."""
    inside_rows = _near(images.shape[2], row, length)
    inside_columns = _near(images.shape[3], column, length)
    return images.masked_fill(inside_rows[:, None, :, None] & inside_columns[:, None, None, :], fill)


def _near(size: int, centre: Tensor, length: int) -> Tensor:
    """bool [N, size]: within the half-open stretch of ``length`` pixels around each centre."""
    offset = torch.arange(size, device=centre.device) - centre[:, None]
    return (offset >= -(length // 2)) & (offset < length // 2)
