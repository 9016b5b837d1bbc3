"""What the rest of the house sees of data: splits, a data set, a batch, and the way from pixels to network input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """One mini-batch. ``indices`` are positions in the split, so any message can name the image.

    ``views`` are further views of the same images, each like ``inputs``; ``partner`` is a second batch of as many
    images, drawn by a sampler of its own (GLMC). Both are for the objectives that ask for them.
    ``whole`` is the number of images of the batch that this is one process's part of; 0: of none.
    """

    inputs: Tensor  # float32 [N, channels, height, width], normalised, on the training device
    targets: Tensor  # int64 [N], or float32 [N, C] once two batches are mixed
    indices: Tensor  # int64 [N]
    views: tuple[Tensor, ...] = ()
    partner: Batch | None = None
    whole: int = 0


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """From a decoded picture (uint8) to what the network sees; travels with checkpoints and exports.

    ``image_size`` S: the network sees S x S. ``resize_to``: shorter side is first scaled to this many pixels and the
    S x S centre is cut out; 0 means that pictures are already S x S or are scaled to it exactly.
    ``mean`` and ``std`` are per channel, in units of [0, 1] pixel values. ``background`` (0-255 grey level) is put
    behind transparent pixels. ``white_level`` is the value that becomes 255 in images of more than 8 bits a channel
    (4095 for 12-bit data in 16-bit files); 0: that of the file, 65535 for integers and 1 for floats.
    """

    image_size: int
    channels: int = 3
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.25, 0.25, 0.25)
    resize_to: int = 0
    background: int = 255
    white_level: float = 0.0

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] in 0..255 -> float32 [N, C, H, W]: ``(x / 255 - mean) / std``."""
        mean = torch.tensor(self.mean, device=images.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(-1, 1, 1)
        return (images.float() / 255 - mean) / std


@dataclass(frozen=True)
class ArraySplit:
    """A split that lives whole in memory. ``images`` uint8 [N, C, H, W], ``labels`` int64 [N]."""

    images: Tensor
    labels: Tensor
    names: Sequence[str] | None = None  # what to call image i in a message, e.g. its path

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class FileSplit:
    """A split that stays on disk. ``paths`` [N], ``labels`` int64 [N]; decoded by workers when a batch needs them."""

    paths: Sequence[Path]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> list[str]:
        return [str(path) for path in self.paths]


Split = ArraySplit | FileSplit


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Everything a run needs to know of its data.

    ``classes`` maps label -> name. ``class_counts`` counts the training images per class. ``groups`` lists the class
    labels of head, mid and tail. ``draw_hash`` identifies the exact training images and labels (SHA-256, 16 hex
    digits), so that results on different draws are never ranked together unmarked; ``held_hash`` those of the test and
    validation splits. ``base`` is the folder below which the names of a person's own images identify them. Both are
    empty for named sets, whose splits are fixed, and for data split by position. ``skipped`` are files that could
    not be read, with the reason. ``augment`` is the recommended training augmentation (a name known to
    ``saddlescape.data.augment``). ``original_labels`` [C] are the labels in the source's own files where ours are
    others (``imagenet-lt`` and ``inat2018`` are re-indexed by frequency).
    """

    name: str
    train: Split
    test: Split
    classes: list[str]
    class_counts: list[int]
    groups: dict[str, list[int]]
    preprocess: Preprocess
    draw_hash: str
    val: Split | None = None
    augment: str = "none"
    notes: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    original_labels: list[int] | None = None
    held_hash: str = ""
    base: Path | None = None

    @property
    def num_classes(self) -> int:
        return len(self.classes)
