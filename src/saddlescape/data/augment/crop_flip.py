"""Random crop out of a zero-padded image, and horizontal flip: the augmentation of every CIFAR paper."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from saddlescape.errors import InputError


@dataclass(frozen=True)
class CropFlip:
    """Shift by up to ``padding`` pixels each way (zeros come in at the border), mirror with ``flip_probability``.

    Equals torchvision's ``RandomCrop(H, padding)`` followed by ``RandomHorizontalFlip(p)`` in distribution, with a
    draw of its own for every image. The result is channels-last in memory.
    """

    padding: int = 4
    flip_probability: float = 0.5

    def __post_init__(self) -> None:
        if self.padding < 0 or not 0 <= self.flip_probability <= 1:
            raise InputError(
                f"CropFlip needs padding >= 0 and a flip probability in [0, 1], got {self.padding} and "
                f"{self.flip_probability}"
            )

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        top, left, flip = self.draw(len(images), generator)
        return crop_flip(images, top, left, flip, self.padding)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Row and column of each crop in the padded image, int64 [N] in 0..2 * padding, and whether to mirror."""
        corners = torch.randint(0, 2 * self.padding + 1, (2, count), generator=generator)
        flip = torch.rand(count, generator=generator) < self.flip_probability
        return corners[0], corners[1], flip

    def on_image(self, image: Image.Image, drawn: tuple[Tensor, ...], row: int) -> Image.Image:
        """What the batch form makes of image ``row``, to the bit, by Pillow; for flips without a crop."""
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if bool(drawn[2][row]) else image


def crop_flip(images: Tensor, top: Tensor, left: Tensor, flip: Tensor, padding: int) -> Tensor:
    """Crop image n, mirrored where ``flip[n]``, at (``top[n]``, ``left[n]``) of its zero-padded frame.

    ``images`` uint8 [N, C, H, W] -> uint8 [N, C, H, W], channels-last.

    Why it is written like this: with channels last a crop is H runs of W * C bytes, so a strided view in which
    *every* pixel of the padded frames is the corner of a crop turns the whole job into one ``index_select`` that
    copies runs of bytes, with no index per pixel. Mirrored images are put into frames of their own, behind the
    plain ones.
    """
    count, channels, height, width = images.shape
    device = images.device
    if padding == 0:
        chosen = flip.to(device, non_blocking=True).view(-1, 1, 1, 1)
        return torch.where(chosen, images.flip(3), images).contiguous(memory_format=torch.channels_last)

    pixels = images.permute(0, 2, 3, 1)
    mirrored = flip.nonzero().squeeze(1)
    frame = torch.arange(count)
    frame[mirrored] = torch.arange(count, count + len(mirrored))
    frames_high, frames_wide = height + 2 * padding, width + 2 * padding
    frames = torch.zeros((count + len(mirrored), frames_high, frames_wide, channels), dtype=images.dtype, device=device)
    inside = frames[:, padding : padding + height, padding : padding + width]
    inside[:count] = pixels
    inside[count:] = pixels.index_select(0, mirrored.to(device, non_blocking=True)).flip(2)

    corners = len(frames) * frames_high * frames_wide - ((height - 1) * frames_wide + width) + 1
    crops = frames.as_strided((corners, height, width * channels), (channels, frames_wide * channels, 1))
    corner = (frame * frames_high + top) * frames_wide + left
    picked = crops.index_select(0, corner.to(device, non_blocking=True))
    return picked.view(count, height, width, channels).permute(0, 3, 1, 2)
