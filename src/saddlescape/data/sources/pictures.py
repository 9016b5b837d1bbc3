"""Labelled pictures before they are decoded: what every source hands to ``load``, and how it says what it found."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saddlescape.data.paths import take_paths
from saddlescape.data.reader import image_size, pixels
from saddlescape.data.types import Preprocess

# Called as progress(what, done, total); total is None when it is unknown. ``what`` is e.g. "downloading x" (bytes).
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class ArrayPictures:
    """Decoded already. ``images`` uint8 [N, C, H, W], ``labels`` int64 [N]; ``where`` names image i of the original."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    where: Sequence[str]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: NDArray[np.int64]) -> ArrayPictures:
        """The pictures at these positions, in this order."""
        return ArrayPictures(self.images[positions], self.labels[positions], [self.where[i] for i in positions])

    def name(self, i: int) -> str:
        return self.where[i]

    def size(self, i: int) -> tuple[int, int]:
        return self.images.shape[3], self.images.shape[2]

    def content(self, i: int) -> bytes:
        return self.images[i].tobytes()

    def pixels(self, i: int, preprocess: Preprocess) -> Tensor:
        """uint8 [C, S, S]: stored in the size the network sees."""
        return torch.from_numpy(self.images[i])


@dataclass(frozen=True)
class FilePictures:
    """One file each. ``paths`` [N], ``labels`` int64 [N]."""

    paths: Sequence[Path]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: NDArray[np.int64]) -> FilePictures:
        """The pictures at these positions, in this order."""
        return FilePictures(take_paths(self.paths, positions), self.labels[positions])

    def name(self, i: int) -> str:
        return str(self.paths[i])

    def size(self, i: int) -> tuple[int, int]:
        return image_size(self.paths[i])

    def content(self, i: int) -> bytes:
        return self.paths[i].read_bytes()

    def pixels(self, i: int, preprocess: Preprocess) -> Tensor:
        """uint8 [C, S, S]; ``InputError`` if the file cannot be read."""
        return pixels(preprocess, self.paths[i])


@dataclass(frozen=True)
class EncodedPictures:
    """Files kept inside a container. ``fetch(positions)`` gives their encoded bytes; ``rows`` [N] says which of the
    container's pictures these are, so that nothing is fetched before the choice has been made. ``identity`` tells this
    state of the container from any other (see ``cache``)."""

    fetch: Callable[[NDArray[np.int64]], list[bytes]]
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    where: Callable[[int], str]
    identity: str
    fetched: list[bytes] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: NDArray[np.int64]) -> EncodedPictures:
        """The pictures at these positions, in this order."""
        fetched = None if self.fetched is None else [self.fetched[i] for i in positions]
        return replace(self, rows=self.rows[positions], labels=self.labels[positions], fetched=fetched)

    def loaded(self) -> EncodedPictures:
        """The same with all encoded bytes in memory."""
        if self.fetched is not None:
            return self
        return replace(self, fetched=self.fetch(self.rows))

    def name(self, i: int) -> str:
        return self.where(int(self.rows[i]))

    def size(self, i: int) -> tuple[int, int]:
        return image_size(self.content(i), name=self.name(i))

    def content(self, i: int) -> bytes:
        return self.fetched[i] if self.fetched is not None else self.fetch(self.rows[i : i + 1])[0]

    def pixels(self, i: int, preprocess: Preprocess) -> Tensor:
        """uint8 [C, S, S]; ``InputError`` if the bytes cannot be read."""
        return pixels(preprocess, self.content(i), name=self.name(i))


Pictures = ArrayPictures | FilePictures | EncodedPictures


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a whole copy holds: classes, training images in all and in the largest and smallest class, test images."""

    classes: int
    train: int
    largest: int
    smallest: int
    test_per_class: int

    def differences(self, train: Sequence[int], test: Sequence[int] | None) -> list[str]:
        """What per-class counts ([C] each) show to be otherwise, a line each; nothing for another number of classes."""
        if len(train) != self.classes:
            return []
        found = [
            (f"{sum(train):,} training images", f"{self.train:,}", sum(train) == self.train),
            (f"{max(train):,} training images in the largest class", f"{self.largest:,}", max(train) == self.largest),
            (f"{min(train):,} training images in the rarest class", f"{self.smallest:,}", min(train) == self.smallest),
        ]
        lines = [f"{ours}, published are {theirs}" for ours, theirs, right in found if not right]
        wrong = [c for c, count in enumerate(test or []) if count != self.test_per_class]
        if test and wrong:
            lines.append(
                f"{len(wrong):,} classes do not have the published {self.test_per_class} test images, first class "
                f"{wrong[0]} with {test[wrong[0]]}"
            )
        return lines


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a source found. ``test`` is None where there is only one set: ``load`` then splits it, stratified.

    ``preprocess`` is None where it follows from the pictures. ``ignored`` are stray files, ``unreadable`` entries that
    point to nothing, with the reason. ``streamed``: pictures of natural size, of which training sees random crops, so
    they stay on disk whatever their number. ``original_labels`` [C]: the label of each class in the source's files,
    where it is another one. ``base``: the folder below which the names of a person's own images identify them.
    """

    name: str
    kind: str
    classes: list[str]
    train: Pictures
    test: Pictures | None = None
    val: Pictures | None = None
    preprocess: Preprocess | None = None
    augment: str | None = None
    notes: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    streamed: bool = False
    published: Published | None = None
    original_labels: list[int] | None = None
    base: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a source is asked for. ``where`` is the path of a folder, list or parquet; ``root`` holds named data sets.

    ``lenient``: entries that point to no file are put into ``Found.unreadable`` rather than refused. ``ties``: the
    order of equally frequent classes where labels are re-indexed by frequency ("stable" or "reference"). ``partial``:
    the images are to be scored, not trained on, so some of the classes suffice.
    """

    name: str
    where: Path | None = None
    root: Path | None = None
    test: Path | None = None
    download: bool = False
    lenient: bool = False
    ties: str = "stable"
    partial: bool = False
    progress: Progress | None = None
