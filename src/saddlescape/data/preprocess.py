"""The way from an image to what the network sees."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """From a decoded image (uint8) to what the network sees; travels with checkpoints and exports.

    ``image_size`` S: the network sees S x S. ``resize_to``: shorter side is first scaled to this many pixels and the
    S x S centre is cut out; 0 means that images are already S x S or are scaled to it exactly.
    ``mean`` and ``std`` are per channel, in units of [0, 1] pixel values. ``background`` (0-255 grey level) is put
    behind transparent pixels. ``white_level`` is the value that becomes 255 in images of more than 8 bits a channel
    (4095 for 12-bit data in 16-bit files); 0: that of the file, 65535 for integers and 1 for floats.
    ``interpolation`` of the scaling, with anti-aliasing: "bilinear" or "bicubic".

    ``features``: not images but vectors of ``channels`` numbers, float32 [N, channels, 1, 1], with ``mean`` and ``std``
    in their own units.
    """

    image_size: int
    channels: int = 3
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)
    resize_to: int = 0
    background: int = 255
    white_level: float = 0.0
    interpolation: str = "bilinear"
    features: bool = False

    @property
    def unit(self) -> float:
        """The stored value that stands for 1: 255 for pixels."""
        return 1.0 if self.features else 255.0

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] in 0..255 -> float32 [N, C, H, W]: ``(x / unit - mean) / std``."""
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        return (images.float() / self.unit - mean) / std
