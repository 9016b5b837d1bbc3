"""Augmentation of whole batches of uint8 images, every image with its own draw; see ``registry`` for the names."""

from __future__ import annotations

from saddlescape.data.augment.crop_flip import CropFlip
from saddlescape.data.augment.cutout import Cutout
from saddlescape.data.augment.jitter import ColorJitter, SimCLRColors
from saddlescape.data.augment.mix import cutmix, cutmix_box, draw_lambda, mixup, one_hot
from saddlescape.data.augment.policies import AutoAugment, RandAugment
from saddlescape.data.augment.registry import AUGMENTATIONS, Augment, Compose, build_augment
from saddlescape.data.augment.resized_crop import ResizedCrop

__all__ = [
    "AUGMENTATIONS",
    "Augment",
    "AutoAugment",
    "ColorJitter",
    "Compose",
    "CropFlip",
    "Cutout",
    "RandAugment",
    "ResizedCrop",
    "SimCLRColors",
    "build_augment",
    "cutmix",
    "cutmix_box",
    "draw_lambda",
    "mixup",
    "one_hot",
]
