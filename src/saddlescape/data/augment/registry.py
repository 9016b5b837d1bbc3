"""Augmentations by name, each a few steps in a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from saddlescape.data.augment.crop_flip import CropFlip
from saddlescape.data.augment.cutout import Cutout
from saddlescape.data.augment.jitter import ColorJitter, SimCLRColors
from saddlescape.data.augment.policies import AutoAugment, RandAugment
from saddlescape.data.augment.resized_crop import ResizedCrop
from saddlescape.errors import InputError


class Augment(Protocol):
    """A random change of a batch of images, drawn anew for every image.

    uint8 [N, C, H, W] in, uint8 [N, C, H', W'] out; the input is left as it was. Every random number comes from
    ``generator``, a CPU generator: the draws are small and made on the host, then moved, so that a seed means the
    same crops on every device.
    """

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor: ...


@dataclass(frozen=True)
class Compose:
    """Apply ``steps`` in order; without steps the images pass unchanged."""

    steps: Sequence[Augment] = ()

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if self.steps and (images.dtype != torch.uint8 or images.ndim != 4):
            raise InputError(
                f"augmentation takes uint8 images [N, C, H, W], got {str(images.dtype).removeprefix('torch.')} "
                f"of shape {list(images.shape)}: augment before converting to float"
            )
        for step in self.steps:
            images = step(images, generator)
        return images


def _padding(size: int) -> int:
    return max(1, size // 8)  # 4 of CIFAR's 32 pixels, 1 of the digits' 8


def _flip() -> CropFlip:
    return CropFlip(padding=0)


AUGMENTATIONS: dict[str, Callable[[int], Compose]] = {
    "none": lambda size: Compose(),
    "flip": lambda size: Compose((_flip(),)),
    "crop": lambda size: Compose((CropFlip(_padding(size), flip_probability=0.0),)),
    "crop-flip": lambda size: Compose((CropFlip(_padding(size)),)),
    "crop-flip-cutout": lambda size: Compose((CropFlip(_padding(size)), Cutout(size // 2))),
    "randaugment": lambda size: Compose((CropFlip(_padding(size)), RandAugment())),
    "autoaugment-cutout": lambda size: Compose((CropFlip(_padding(size)), AutoAugment(), Cutout(size // 2))),
    "resized-crop-flip": lambda size: Compose((ResizedCrop(size), _flip())),
    "resized-crop-flip-jitter": lambda size: Compose((ResizedCrop(size), _flip(), ColorJitter())),
    "simclr": lambda size: Compose((ResizedCrop(size), _flip(), SimCLRColors())),
}


def build_augment(name: str, image_size: int) -> Augment:
    """The augmentation called ``name`` for images of ``image_size`` x ``image_size`` pixels.

    ``none``; ``flip``; ``crop`` (shift by up to an eighth, zeros come in); ``crop-flip``, the CIFAR standard;
    ``crop-flip-cutout``; ``randaugment`` (crop, flip, RandAugment(2, 9)); ``autoaugment-cutout`` (crop, flip,
    AutoAugment's CIFAR-10 policy, a hole of half the side); ``resized-crop-flip``, the ImageNet standard, and
    ``resized-crop-flip-jitter``, the same with colour jitter 0.4, and ``simclr``, with SimCLR's colours instead. The
    last three take images of any size and give ``image_size``. Raises ``InputError`` for another name.
    """
    if name not in AUGMENTATIONS:
        raise InputError(f"unknown augmentation {name!r}: choose one of {', '.join(AUGMENTATIONS)}")
    if image_size < 1:
        raise InputError(f"image size must be at least 1 pixel, got {image_size}")
    return AUGMENTATIONS[name](image_size)
