"""Shear, translate and rotate a batch of images, each by its own amount, to Pillow's bits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Pillow walks through the source image in 16.16 fixed point when it takes the nearest pixel.
_FIXED = 1 << 16


def shear_x(images: Tensor, magnitude: Tensor, fill: int = 128) -> Tensor:
    """``Image.transform(size, AFFINE, (1, magnitude, 0, 0, 1, 0), BICUBIC)`` of each image.

    ``images`` uint8 [N, C, H, W], ``magnitude`` [N]: pixels of shift per row. Pixels from outside are ``fill``.
    """
    _, channels, height, width = images.shape
    device = images.device
    m = magnitude.to(device, torch.float64).view(-1, 1, 1)
    x = torch.arange(width, device=device, dtype=torch.float64) + 0.5
    y = torch.arange(height, device=device, dtype=torch.float64).view(-1, 1) + 0.5
    source = x + m * y  # [N, H, W]
    inside = (source >= 0) & (source < width)
    # The rows stay, so of the 4 x 4 cubic only the horizontal four taps are left (a = -1, as Pillow has it).
    source = source - 0.5
    first = source.floor()
    d = (source - first).unsqueeze(1)
    first = first.long() - 1

    def tap(k: int) -> Tensor:
        at = (first + k).clamp(0, width - 1).unsqueeze(1).expand(-1, channels, -1, -1)
        return images.gather(3, at).double()

    v1, v2, v3, v4 = tap(0), tap(1), tap(2), tap(3)
    value = v2 + d * ((v3 - v1) + d * ((2 * (v1 - v2) + v3 - v4) + d * (v2 - v1 - v3 + v4)))
    return torch.where(inside.unsqueeze(1), value.clamp(0, 255).to(torch.uint8), fill)


def shear_y(images: Tensor, magnitude: Tensor, fill: int = 128) -> Tensor:
    """As :func:`shear_x`, along the columns."""
    return shear_x(images.transpose(2, 3), magnitude, fill).transpose(2, 3)


def translate_x(images: Tensor, pixels: Tensor, fill: int = 128) -> Tensor:
    """``Image.transform(size, AFFINE, (1, 0, pixels, 0, 1, 0))``: the image moves left by ``pixels`` [N], rounded."""
    count, channels, height, width = images.shape
    step = torch.floor(pixels.double() + 0.5).long().to(images.device)
    source = torch.arange(width, device=images.device) + step.view(-1, 1)  # [N, W]
    inside = (source >= 0) & (source < width)
    at = source.clamp(0, width - 1).view(count, 1, 1, width).expand(-1, channels, height, -1)
    return torch.where(inside.view(count, 1, 1, width), images.gather(3, at), fill)


def translate_y(images: Tensor, pixels: Tensor, fill: int = 128) -> Tensor:
    """As :func:`translate_x`, upwards."""
    return translate_x(images.transpose(2, 3), pixels, fill).transpose(2, 3)


def rotate(images: Tensor, degrees: Tensor, fill: int = 128) -> Tensor:
    """``Image.rotate(degrees, NEAREST)``: counter-clockwise about the centre. |degrees| < 90."""
    count, channels, height, width = images.shape
    device = images.device
    rows = [_fixed_point_rotation(angle, height, width) for angle in degrees.tolist()]
    a0, a1, a2, a3, a4, a5 = torch.tensor(rows, dtype=torch.int64).to(device).view(count, 6, 1, 1).unbind(1)
    x = torch.arange(width, device=device)
    y = torch.arange(height, device=device).view(-1, 1)
    column = (a2 + a0 * x + a1 * y) >> 16  # [N, H, W]
    row = (a5 + a3 * x + a4 * y) >> 16
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    at = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).view(count, 1, -1).expand(-1, channels, -1)
    turned = images.reshape(count, channels, -1).gather(2, at).view(count, channels, height, width)
    return torch.where(inside.unsqueeze(1), turned, fill)


def _fixed_point_rotation(degrees: float, height: int, width: int) -> list[int]:
    """The six numbers of the map from a target pixel to its source, in 1/65536 pixel, rounded as Pillow does."""
    angle = -math.radians(degrees % 360)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    minus_sin = round(-math.sin(angle), 15)
    x, y = width / 2, height / 2
    c = cos * -x + sin * -y + 0.0 + x
    f = minus_sin * -x + cos * -y + 0.0 + y
    matrix = (cos, sin, c + cos * 0.5 + sin * 0.5, minus_sin, cos, f + minus_sin * 0.5 + cos * 0.5)
    return [math.floor(value * _FIXED + 0.5) for value in matrix]
