"""Labelled images as they pass from a source to a loader: decoded in memory, files on disk, or files in a container."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from saddlescape.data.paths import take_paths
from saddlescape.data.preprocess import Preprocess
from saddlescape.data.reader import image_size, pixels


@dataclass(frozen=True)
class ArraySplit:
    """Images in memory. ``images`` uint8 [N, C, H, W], ``labels`` int64 [N].

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


@dataclass(frozen=True)
class FileSplit:
    """Images on disk, decoded when a batch needs them. ``paths`` [N], ``labels`` int64 [N]."""

    paths: Sequence[Path]
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> list[str]:
        return [str(path) for path in self.paths]

    def take(self, positions: ArrayLike) -> FileSplit:
        """The images at these positions, in this order."""
        index = np.asarray(positions, dtype=np.int64)
        return FileSplit(take_paths(self.paths, index), self.labels[torch.from_numpy(index)])

    def name(self, i: int) -> str:
        return str(self.paths[i])

    def size(self, i: int) -> tuple[int, int]:
        """Width and height as stored. ``InputError`` if the file cannot be read, here and in ``pixels``."""
        return image_size(self.paths[i])

    def content(self, i: int) -> bytes:
        return self.paths[i].read_bytes()

    def pixels(self, i: int, preprocess: Preprocess) -> Tensor:
        """uint8 [C, S, S]."""
        return pixels(preprocess, self.paths[i])


@dataclass(frozen=True)
class EncodedSplit:
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

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> list[str]:
        return [self.name(i) for i in range(len(self))]

    def take(self, positions: ArrayLike) -> EncodedSplit:
        """The images at these positions, in this order."""
        index = np.asarray(positions, dtype=np.int64)
        fetched = None if self.fetched is None else [self.fetched[i] for i in index]
        return replace(self, rows=self.rows[index], labels=self.labels[torch.from_numpy(index)], fetched=fetched)

    def loaded(self) -> EncodedSplit:
        """The same with all encoded bytes in memory."""
        return self if self.fetched is not None else replace(self, fetched=self.fetch(self.rows))

    def name(self, i: int) -> str:
        return self.where(int(self.rows[i]))

    def size(self, i: int) -> tuple[int, int]:
        """Width and height as stored. ``InputError`` if the bytes cannot be read, here and in ``pixels``."""
        return image_size(self.content(i), name=self.name(i))

    def content(self, i: int) -> bytes:
        return self.fetched[i] if self.fetched is not None else self.fetch(self.rows[i : i + 1])[0]

    def pixels(self, i: int, preprocess: Preprocess) -> Tensor:
        """uint8 [C, S, S]."""
        return pixels(preprocess, self.content(i), name=self.name(i))


Split = ArraySplit | FileSplit
"""What a loader takes."""
Images = ArraySplit | FileSplit | EncodedSplit
"""What a source finds."""
