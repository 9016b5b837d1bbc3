"""Labelled images as they pass from a source to a loader: decoded in memory, files on disk, or files in a container."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from saddlescape.data.paths import PackedPaths, take_paths
from saddlescape.data.preprocess import Preprocess
from saddlescape.data.reader import image_size, pixels, read_file


@dataclass(frozen=True)
class ArraySplit:
    """Images in memory, uint8 [N, C, H, W], or features, float32 [N, d, 1, 1]; ``labels`` int64 [N].

    ``names`` [N] is what to call image i in a message, e.g. its path.
    """

    images: Tensor
    labels: Tensor
    names: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, positions: ArrayLike) -> ArraySplit:
        """The images at these positions, in this order."""
        index = torch.from_numpy(np.asarray(positions, dtype=np.int64))
        names = None if self.names is None else [self.names[i] for i in index.tolist()]
        return ArraySplit(self.images[index], self.labels[index], names)

    def name(self, i: int) -> str:
        return f"image {i}" if self.names is None else self.names[i]

    def size(self, i: int) -> tuple[int, int]:
        """Width and height."""
        return self.images.shape[3], self.images.shape[2]

    def content(self, i: int) -> bytes:
        return self.images[i].numpy().tobytes()

    def pixels(self, i: int, preprocess: Preprocess) -> Tensor:
        """uint8 [C, S, S]: stored in the size that the network sees."""
        return self.images[i]


class _Stored(ABC):
    """What encoded images have in common. ``InputError`` if one cannot be read."""

    labels: Tensor

    @abstractmethod
    def source(self, i: int) -> Path | bytes:
        """Where the reader finds image i: its path, or its encoded bytes."""

    @abstractmethod
    def name(self, i: int) -> str:
        """What to call image i in a message."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> list[str]:
        return [self.name(i) for i in range(len(self))]

    def size(self, i: int) -> tuple[int, int]:
        """Width and height as stored."""
        return image_size(self.source(i), name=self.name(i))

    def content(self, i: int) -> bytes:
        """The encoded bytes."""
        source = self.source(i)
        return source if isinstance(source, bytes) else read_file(source)

    def pixels(self, i: int, preprocess: Preprocess) -> Tensor:
        """uint8 [C, S, S]."""
        return pixels(preprocess, self.source(i), name=self.name(i))


@dataclass(frozen=True)
class FileSplit(_Stored):
    """Images on disk, decoded when a batch needs them. ``paths`` [N], ``labels`` int64 [N]."""

    paths: Sequence[Path]
    labels: Tensor

    def take(self, positions: ArrayLike) -> FileSplit:
        """The images at these positions, in this order."""
        index = np.asarray(positions, dtype=np.int64)
        return FileSplit(take_paths(self.paths, index), self.labels[torch.from_numpy(index)])

    def source(self, i: int) -> Path:
        return self.paths[i]

    def name(self, i: int) -> str:
        return str(self.paths[i])


@dataclass(frozen=True)
class EncodedSplit(_Stored):
    """Files kept inside a container, which ``load`` decodes. ``labels`` int64 [N].

    ``fetch(rows)`` gives their encoded bytes; ``rows`` [N] says which of the container's images these are, so that
    nothing is fetched before the choice has been made. ``identity`` is different for every state of the container (see
    ``cache``).
    """

    fetch: Callable[[NDArray[np.int64]], list[bytes]]
    rows: NDArray[np.int64]
    labels: Tensor
    where: Callable[[int], str]
    identity: str
    fetched: list[bytes] | None = None

    def take(self, positions: ArrayLike) -> EncodedSplit:
        """The images at these positions, in this order."""
        index = np.asarray(positions, dtype=np.int64)
        fetched = None if self.fetched is None else [self.fetched[i] for i in index]
        return replace(self, rows=self.rows[index], labels=self.labels[torch.from_numpy(index)], fetched=fetched)

    def loaded(self) -> EncodedSplit:
        """The same with all encoded bytes in memory."""
        return self if self.fetched is not None else replace(self, fetched=self.fetch(self.rows))

    def source(self, i: int) -> bytes:
        return self.fetched[i] if self.fetched is not None else self.fetch(self.rows[i : i + 1])[0]

    def name(self, i: int) -> str:
        return self.where(int(self.rows[i]))


Split = ArraySplit | FileSplit
"""What a loader takes."""
Images = ArraySplit | FileSplit | EncodedSplit
"""What a source finds."""


def spread(total: int, most: int) -> list[int]:
    """Up to ``most`` evenly spaced positions."""
    return list(range(total)) if total <= most else [i * total // most for i in range(most)]


def draw_hash(*splits: Split) -> str:
    """The identity of a draw of images: SHA-256 over labels and images in their order, 16 hex digits.

    Of images in memory their pixels count (uint8, with the shape); of images on disk their path below the folder that
    all share, and their size in bytes.
    """
    digest = hashlib.sha256()
    for split in splits:
        digest.update(np.ascontiguousarray(split.labels.numpy().astype("<i8")).data)
        if isinstance(split, ArraySplit):
            digest.update(repr(tuple(split.images.shape)).encode())
            digest.update(split.images.contiguous().numpy().data)
        else:
            for path, size in _below_shared(split):
                digest.update(os.fsencode(f"{path}\0{size}\n"))
    return digest.hexdigest()[:16]


def _below_shared(split: FileSplit) -> Iterator[tuple[str, int]]:
    """Each path below the folder that all share, and its size in bytes; one at a time, for there may be millions."""
    folders = {os.path.dirname(text) for text in _texts(split)}  # noqa: PTH120
    shared = os.path.commonpath(folders) if folders else ""
    begins = shared.rstrip(os.sep) + os.sep
    plain = bool(shared) and os.pardir not in shared
    for text in _texts(split):
        size = os.stat(text).st_size  # noqa: PTH116
        if plain and text.startswith(begins) and os.pardir not in text:  # what relpath would say, ten times faster
            yield text[len(begins) :], size
        else:
            yield os.path.relpath(text, shared or os.curdir), size


def _texts(split: FileSplit) -> Iterator[str]:
    paths = split.paths
    return (paths.text(i) for i in range(len(paths))) if isinstance(paths, PackedPaths) else map(str, paths)
