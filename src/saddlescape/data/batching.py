"""What the two loaders share: seeds for a batch, where batches begin and end, and pixels to network input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saddlescape.data.augment import Augment
from saddlescape.data.cores import usable_cores
from saddlescape.data.samplers import Sampler
from saddlescape.data.types import ArraySplit, Batch, Preprocess, Split
from saddlescape.errors import InputError

# What a derived seed is for; the first entry of its path.
ORDER, AUGMENT, CROP = 0, 1, 2


def derived_generator(seed: int, *path: int) -> torch.Generator:
    """A CPU generator that depends on ``seed`` and ``path`` (say: purpose, epoch, batch) alone.

    So a run that resumes at an epoch and batch needs no saved generator state to go on with the same bits.
    """
    return torch.Generator().manual_seed(derived_seed(seed, *path))


def derived_seed(seed: int, *path: int) -> int:
    """The seed of ``derived_generator``, below 2^63."""
    sequence = np.random.SeedSequence(seed, spawn_key=path)
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def derived_key(seed: int, *path: int) -> NDArray[np.uint64]:
    """As ``derived_generator``: two words, uint64 [2], the key of counter-based numbers."""
    words = np.random.SeedSequence(seed, spawn_key=path).generate_state(2, np.uint64)
    return words.astype(np.uint64)


def batch_bounds(count: int, batch_size: int) -> list[tuple[int, int]]:
    """Begin and end of each batch over ``count`` images; nothing is dropped.

    The last batch may be smaller. Were it a single image, it joins the one before, which then has one image more
    than ``batch_size``: BatchNorm in training mode cannot take a batch of one.
    """
    begins = list(range(0, count, batch_size))
    if len(begins) > 1 and batch_size > 1 and count - begins[-1] == 1:
        begins.pop()
    return list(zip(begins, [*begins[1:], count], strict=True))


def checked_labels(split: Split) -> Tensor:
    """The split's labels as int64 [N] on the host; ``InputError`` names the first that cannot be a class."""
    labels = split.labels.detach().cpu()
    images = len(split.images if isinstance(split, ArraySplit) else split.paths)
    if images != len(labels) or images == 0:
        raise InputError(
            f"a split needs as many labels as images, at least one, got {images} images and {len(labels)} labels"
        )
    if labels.ndim != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(
            f"labels must be integers of shape [N], got {str(labels.dtype).removeprefix('torch.')} {list(labels.shape)}"
        )
    labels = labels.long()
    if (labels < 0).any():
        first = int((labels < 0).nonzero()[0])
        name = f"image {first}" if split.names is None else f"image {first}, {split.names[first]},"
        raise InputError(f"{name} has the label {int(labels[first])}: labels count from 0")
    return labels


class EpochLoader(ABC):
    """Batches of a split: which images an epoch shows, in what order and in which batches.

    Batch b of epoch t is a function of (``seed``, t, b) and nothing else, so ``epoch(t, start_batch=b)`` resumes bit
    for bit. No image is dropped; see :func:`batch_bounds` for the last batch. ``inputs`` are float32, channels-last;
    ``targets`` and ``indices`` int64; all lie on ``device``.

    Args:
        augment: None leaves images as they are.
        sampler: None shows the images in order (evaluation); ``instance-balanced`` is the ordinary shuffle.
        workers: of a ``StreamLoader``: processes that read ahead. None: one a core, at most 16; 0: this process itself.
        shard: of a ``StreamLoader``: (rank, size) where ranks share each batch. This rank's shard of it is read and
            given, to the same bits as in the whole batch. A ``ResidentLoader`` gives whole batches, which cost little;
            ``shards.shard_of`` cuts them.

    Raises:
        InputError: labels that cannot be classes or are not one per image, or a setting out of range.
    """

    def __init__(
        self, split: Split, preprocess: Preprocess, *, batch_size: int, device: str | torch.device = "cpu",
        augment: Augment | None = None, sampler: Sampler | None = None, seed: int = 0, workers: int | None = None,
        shard: tuple[int, int] = (0, 1),
    ) -> None:  # fmt: skip
        if batch_size < 1:
            raise InputError(f"batch size must be at least 1, got {batch_size}")
        if seed < 0:
            raise InputError(f"the loader's seed must not be negative, got {seed}")
        self.labels = checked_labels(split)
        self.split, self.batch_size, self.device = split, batch_size, torch.device(device)
        self.augment, self.sampler, self.seed = augment, sampler, seed
        self.workers = min(16, usable_cores()) if workers is None else workers
        if self.workers < 0:
            raise InputError(f"a loader needs workers >= 0, got {self.workers}")
        self.shard = shard
        self.bounds = batch_bounds(len(split) if sampler is None else len(sampler), batch_size)
        self._normalize = Normalizer(preprocess, self.device)
        self._prepare(split, preprocess)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.bounds)

    def order(self, t: int) -> Tensor:
        """The positions in the split that epoch ``t`` shows, in order: int64 [images of an epoch], on the host."""
        if self.sampler is None:
            return torch.arange(len(self.split))
        return self.sampler.indices(t, derived_generator(self.seed, ORDER, t))

    def epoch(self, t: int = 0, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of epoch ``t`` (0-based) from number ``start_batch`` on. ``InputError`` for an unknown batch."""
        if t < 0 or not 0 <= start_batch <= len(self):
            raise InputError(f"no batch {start_batch} in epoch {t}: an epoch has batches 0..{len(self) - 1}")
        return self._batches(t, start_batch)

    @abstractmethod
    def _prepare(self, split: Any, preprocess: Preprocess) -> None: ...

    @abstractmethod
    def _batches(self, t: int, start_batch: int) -> Iterator[Batch]: ...


class Normalizer:
    """``Preprocess.normalize``, float32 and channels-last, by one multiplication and one addition a value.

    Differs from it by rounding only (about 1e-6).
    """

    def __init__(self, preprocess: Preprocess, device: torch.device) -> None:
        mean, std = torch.tensor(preprocess.mean).double(), torch.tensor(preprocess.std).double()
        if len(mean) != len(std) or (std <= 0).any():
            raise InputError(f"normalisation needs a mean and a positive std per channel, got {mean} and {std}")
        self.device = device
        self._scale, self._shift = 1 / (preprocess.unit * std), -mean / std
        self._pixels = 0  # of the images for which rows of scales and shifts are prepared

    def __call__(self, images: Tensor) -> Tensor:
        count, channels, height, width = images.shape
        if channels != len(self._scale):
            raise InputError(
                f"images have {channels} channels, the preprocessing's mean and std have {len(self._scale)}"
            )
        if self._pixels != height * width:
            self._pixels = height * width
            # The scale and shift of every value of one image [H, W, C].
            self._row_scale, self._row_shift = (
                values.repeat(self._pixels).to(self.device, torch.float32) for values in (self._scale, self._shift)
            )
        # One image a row: the inner loops are then long and contiguous, which three channels on their own are not.
        rows = images.permute(0, 2, 3, 1).reshape(count, -1)
        values = rows.float().mul_(self._row_scale).add_(self._row_shift)
        return values.view(count, height, width, channels).permute(0, 3, 1, 2)
