"""What a loader's worker does with one file: read it straight into its place in a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from saddlescape.data.augment.resized_crop import ATTEMPTS, ResizedCrop
from saddlescape.data.reader import Box, crops, pixels
from saddlescape.data.types import Preprocess
from saddlescape.errors import InputError

Decode = Callable[[Path], Tensor]
"""One file to uint8 [C, S, S]; picklable (a function of a module, a ``functools.partial``, a dataclass instance)."""

Uniform = Callable[[int], NDArray[np.float64]]
"""Numbers in [0, 1), [4, ATTEMPTS], for view v of the picture that is being read."""


After = Callable[[Image.Image, int], Image.Image]
"""What is still to be done with a cropped picture, given its view."""


class Reader(Protocol):
    """``read`` fills ``out``, uint8 [views, H, W, C], of ``shape`` (H, W, C); it raises where it cannot.

    ``after`` is done to every view, where ``finishes``.
    """

    @property
    def finishes(self) -> bool: ...

    @property
    def shape(self) -> tuple[int, int, int]: ...

    def read(self, path: str, uniform: Uniform, out: NDArray[np.uint8], after: After | None = None) -> None: ...


@dataclass(frozen=True)
class WholePicture:
    """The house's reader as evaluation uses it (``reader.pixels``); every view is the same."""

    preprocess: Preprocess
    finishes = False

    @property
    def shape(self) -> tuple[int, int, int]:
        size = self.preprocess.image_size
        return size, size, self.preprocess.channels

    def read(self, path: str, uniform: Uniform, out: NDArray[np.uint8], after: After | None = None) -> None:
        out[:] = pixels(self.preprocess, path).permute(1, 2, 0).numpy()


@dataclass(frozen=True)
class RandomCrop:
    """A random resized crop of the whole picture for every view, decoded once, at reduced size where that is enough.

    The boxes are those of ``ResizedCrop``, in pixels of the original picture.
    """

    preprocess: Preprocess
    crop: ResizedCrop
    reduce: bool = True
    finishes = True

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.crop.size, self.crop.size, self.preprocess.channels

    def read(self, path: str, uniform: Uniform, out: NDArray[np.uint8], after: After | None = None) -> None:
        def boxes(width: int, height: int) -> list[Box]:
            chosen = []
            for view in range(len(out)):
                top, left, high, wide = self.crop.box(uniform(view).tolist(), height, width)
                chosen.append((float(left), float(top), float(left + wide), float(top + high)))
            return chosen

        made = crops(
            path, self.crop.size, boxes,
            channels=self.preprocess.channels, background=self.preprocess.background, reduce=self.reduce,
            white_level=self.preprocess.white_level,
        )  # fmt: skip
        for view, picture in enumerate(made):
            finished = picture if after is None else after(picture, view)
            out[view] = np.asarray(finished).reshape(self.shape)


@dataclass(frozen=True)
class Decoded:
    """Somebody's own ``decode``; ``shape`` is that of the first picture, which all must have."""

    decode: Decode
    shape: tuple[int, int, int]
    finishes = False

    @classmethod
    def like(cls, decode: Decode, first: str) -> Decoded:
        """For pictures of the size that the file ``first`` has."""
        channels, height, width = _checked(decode(Path(first)), first).shape
        return cls(decode, (height, width, channels))

    def read(self, path: str, uniform: Uniform, out: NDArray[np.uint8], after: After | None = None) -> None:
        picture = _checked(self.decode(Path(path)), path)
        height, width, channels = self.shape
        if tuple(picture.shape) != (channels, height, width):
            raise InputError(
                f"{path}: decoded pictures differ in shape, {(channels, height, width)} and {tuple(picture.shape)}: "
                "decode all to one size"
            )
        out[:] = picture.permute(1, 2, 0).numpy()


def counter_uniform(key: NDArray[np.uint64], index: int, repeat: int) -> Uniform:
    """Numbers that depend on ``key`` and the counter (``index``, ``repeat``, view) alone, not on who draws them when.

    Philox4x64-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011); 53 bits of each output.
    """

    def uniform(view: int) -> NDArray[np.float64]:
        bits = np.random.Philox(key=key, counter=[0, index, repeat, view]).random_raw(4 * ATTEMPTS)
        return (bits >> np.uint64(11)).astype(np.float64).reshape(4, ATTEMPTS) * 2.0**-53

    return uniform


def _checked(picture: object, path: str) -> Tensor:
    if not isinstance(picture, Tensor) or picture.dtype != torch.uint8 or picture.ndim != 3:
        raise InputError(f"decoding {path} gave {_describe(picture)}, not a uint8 tensor [C, S, S]")
    return picture


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return type(value).__name__
