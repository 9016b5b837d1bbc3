"""Augmentation of whole batches of uint8 pictures, every picture with its own draw; see ``registry`` for the names."""

from __future__ import annotations

from saddlescape.data.augment.autoaugment import AutoAugment
from saddlescape.data.augment.compose import Augment, Compose
from saddlescape.data.augment.crop_flip import CropFlip
from saddlescape.data.augment.cutout import Cutout
from saddlescape.data.augment.jitter import ColorJitter
from saddlescape.data.augment.mix import cutmix, cutmix_box, draw_lambda, mixup, one_hot
from saddlescape.data.augment.randaugment import RandAugment
from saddlescape.data.augment.registry import AUGMENTATIONS, build_augment
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
    "build_augment",
    "cutmix",
    "cutmix_box",
    "draw_lambda",
    "mixup",
    "one_hot",
]
