"""What the other packages see of data: splits, a data set, a batch, and the way from pixels to network input."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from saddlescape.data.images import ArraySplit, EncodedSplit, FileSplit, Images, Split
from saddlescape.data.preprocess import Preprocess

__all__ = ["ArraySplit", "Batch", "Dataset", "EncodedSplit", "FileSplit", "Images", "Preprocess", "Split"]


class Batch(NamedTuple):
    """One mini-batch. ``indices`` are positions in the split, so any message can name the image.

    ``views`` are further views of the same images, each like ``inputs``; ``partner`` is a second batch of as many
    images, drawn by a sampler of its own (GLMC). Both are for the objectives that ask for them.
    ``whole`` is the number of images of the batch that this is one rank's shard of; 0: of none.
    """

    inputs: Tensor  # float32 [N, channels, height, width], normalised, on the training device
    targets: Tensor  # int64 [N], or float32 [N, C] once two batches are mixed
    indices: Tensor  # int64 [N]
    views: tuple[Tensor, ...] = ()
    partner: Batch | None = None
    whole: int = 0


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
    others (``imagenet-lt`` and ``inat2018`` are re-indexed by frequency). ``source``: the images whose features these
    are.
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
    source: Dataset | None = None

    @property
    def num_classes(self) -> int:
        return len(self.classes)
