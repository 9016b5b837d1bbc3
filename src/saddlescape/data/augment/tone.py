"""Change the tones of a batch of images, each by its own amount, to Pillow's bits.

Point operations by look-up table (invert, solarize, posterize, autocontrast, equalize) and the four of Pillow's
``ImageEnhance`` (brightness, colour, contrast, sharpness), which blend the image with a degenerate form of it.
All take and give uint8 [N, C, H, W].
"""

from __future__ import annotations

import torch
from torch import Tensor

from saddlescape.errors import InputError


def invert(images: Tensor) -> Tensor:
    """``ImageOps.invert``."""
    return 255 - images


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """``ImageOps.solarize``: values at or above ``threshold`` [N] are inverted."""
    below = images < threshold.to(images.device, torch.float32).view(-1, 1, 1, 1)
    return torch.where(below, images, 255 - images)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """``ImageOps.posterize``: keep the ``bits`` [N] (1 to 8, integral) highest bits."""
    mask = 256 - 2 ** (8 - bits.long())
    return images & mask.to(torch.uint8).to(images.device).view(-1, 1, 1, 1)


def autocontrast(images: Tensor) -> Tensor:
    """``ImageOps.autocontrast`` without cut-off: each channel's own range is stretched to 0..255."""
    low = images.amin((2, 3), keepdim=True).double()
    high = images.amax((2, 3), keepdim=True).double()
    # A true division: torch turns ``255.0 / tensor`` into a product with the reciprocal, which is an ulp off at times.
    scale = torch.full_like(high, 255.0) / (high - low)  # infinite for a flat channel, which stays as it is
    stretched = images * scale + -low * scale
    return torch.where(high > low, stretched.nan_to_num(0.0).clamp(0, 255).to(torch.uint8), images)


def equalize(images: Tensor) -> Tensor:
    """``ImageOps.equalize``: each channel's histogram is made as flat as a table of values allows."""
    count, channels, height, width = images.shape
    pixels = images.reshape(count * channels, height * width).long()
    offset = torch.arange(count * channels, device=images.device).view(-1, 1) * 256
    histogram = torch.bincount((pixels + offset).flatten(), minlength=count * channels * 256).view(-1, 256)
    last = histogram.gather(1, pixels.amax(1, keepdim=True))  # count of the brightest value present
    step = (height * width - last) // 255
    before = histogram.cumsum(1) - histogram
    table = (step // 2 + before) // step.clamp(min=1)
    table = torch.where(step > 0, table.clamp(max=255), torch.arange(256, device=images.device))
    return table.gather(1, pixels).to(torch.uint8).view(count, channels, height, width)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """``ImageEnhance.Brightness``: 0 is black, 1 the image itself."""
    return _blend(torch.zeros_like(images), images, factor)


def color(images: Tensor, factor: Tensor) -> Tensor:
    """``ImageEnhance.Color``: 0 is grey, 1 the image itself."""
    return _blend(grey(images), images, factor)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """``ImageEnhance.Contrast``: 0 is the image's mean grey all over, 1 the image itself."""
    luma = grey(images)
    pixels = luma.shape[2] * luma.shape[3]
    total = luma.sum((1, 2, 3), keepdim=True, dtype=torch.int64)
    return _blend(((2 * total + pixels) // (2 * pixels)).to(torch.uint8), images, factor)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """``ImageEnhance.Sharpness``: 0 is smoothed (3 x 3, centre 5, /13, border kept), 1 the image itself."""
    smooth = images.clone()
    if images.shape[2] > 2 and images.shape[3] > 2:
        wide = images.to(torch.int16)
        rows = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
        total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * wide[:, :, 1:-1, 1:-1]
        smooth[:, :, 1:-1, 1:-1] = ((2 * total + 13) // 26).to(torch.uint8)  # total / 13, rounded
    return _blend(smooth, images, factor)


def grey(images: Tensor) -> Tensor:
    """Luma as Pillow's ``convert("L")`` has it, uint8 [N, 1, H, W]; images of one channel are their own."""
    channels = images.shape[1]
    if channels == 1:
        return images
    if channels != 3:
        raise InputError(f"colour operations take images of 1 or 3 channels, got {channels}: use crop-flip")
    red, green, blue = images.int().unbind(1)
    return ((red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16).to(torch.uint8).unsqueeze(1)


def hue(images: Tensor, turns: Tensor) -> Tensor:
    """The hue of image n moved by ``turns[n]`` of the circle; value and chroma stay, and images of one channel.

    Computed in floating point and rounded once; Pillow's 8-bit HSV rounds in between.
    """
    if images.shape[1] != 3:
        return images
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


def _blend(degenerate: Tensor, images: Tensor, factor: Tensor) -> Tensor:
    """``Image.blend``: ``degenerate + factor * (image - degenerate)`` in float32, clipped and cut to whole levels."""
    start = degenerate.float()
    weight = factor.to(images.device, torch.float32).view(-1, 1, 1, 1)
    return (start + weight * (images.float() - start)).clamp_(0, 255).to(torch.uint8)
