"""Cutout (DeVries and Taylor, arXiv 1708.04552): black out one square."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saddlescape.errors import InputError


@dataclass(frozen=True)
class Cutout:
    """Set one ``length`` x ``length`` square to 0; its centre is any pixel, so it may overhang the border.

    Rows ``y - length // 2 .. y + length // 2 - 1`` are cut, as in the authors' code (an odd length cuts one less).
    Deviation: 1. we cut pixels, before normalisation, so the hole is black and not the mean colour, as it is where the
    hole is cut into the normalised tensor.
    """

    length: int = 16

    def __post_init__(self) -> None:
        if self.length < 0:
            raise InputError(f"Cutout needs length >= 0, got {self.length}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        count, _, height, width = images.shape
        row = torch.randint(0, height, (count,), generator=generator).to(images.device)
        column = torch.randint(0, width, (count,), generator=generator).to(images.device)
        return cutout(images, row, column, self.length)


def cutout(images: Tensor, row: Tensor, column: Tensor, length: int) -> Tensor:
    """Cut the square around (``row[n]``, ``column[n]``), int64 [N], out of image n."""
    inside_rows = _near(images.shape[2], row, length)
    inside_columns = _near(images.shape[3], column, length)
    return images.masked_fill(inside_rows[:, None, :, None] & inside_columns[:, None, None, :], 0)


def _near(size: int, centre: Tensor, length: int) -> Tensor:
    """bool [N, size]: within the half-open stretch of ``length`` pixels around each centre."""
    offset = torch.arange(size, device=centre.device) - centre[:, None]
    return (offset >= -(length // 2)) & (offset < length // 2)
