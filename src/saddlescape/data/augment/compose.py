"""What an augmentation is, and one after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from saddlescape.errors import InputError


class Augment(Protocol):
    """A random change of a batch of pictures, drawn anew for every picture.

    uint8 [N, C, H, W] in, uint8 [N, C, H', W'] out; the input is left as it was. Every random number comes from
    ``generator``, a CPU generator: the draws are small and made on the host, then moved, so that a seed means the
    same crops on every device.
    """

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True)
class Compose:
    """Apply ``steps`` in order; without steps the pictures pass unchanged."""

    steps: Sequence[Augment] = ()

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        check_images(images)
        for step in self.steps:
            images = step(images, generator)
        return images


def check_images(images: Tensor) -> None:
    """Raise ``InputError`` unless ``images`` is uint8 [N, C, H, W]."""
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise InputError(
            f"augmentation takes uint8 images [N, C, H, W], got {str(images.dtype).removeprefix('torch.')} "
            f"of shape {list(images.shape)}: augment before converting to float"
        )
