"""What the two loaders share: seeds for a batch, where batches begin and end, and pixels to network input."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saddlescape.data.augment import Augment, Compose
from saddlescape.data.types import Preprocess, Split
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


def check_loader(batch_size: int, seed: int, views: int) -> None:
    """Raise ``InputError`` for values that no loader can work with."""
    if batch_size < 1:
        raise InputError(f"batch size must be at least 1, got {batch_size}")
    if seed < 0:
        raise InputError(f"the loader's seed must not be negative, got {seed}")
    if views not in (1, 2):
        raise InputError(f"a loader gives 1 or 2 views of each image, not {views}")


def checked_labels(split: Split) -> Tensor:
    """The split's labels as int64 [N] on the host; ``InputError`` names the first that cannot be a class."""
    labels = split.labels.detach().cpu()
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


def check_start(epoch: int, start_batch: int, batches: int) -> None:
    """Raise ``InputError`` unless batch ``start_batch`` of epoch ``epoch`` exists (or is just past the last)."""
    if epoch < 0 or not 0 <= start_batch <= batches:
        raise InputError(f"no batch {start_batch} in epoch {epoch}: an epoch has batches 0..{batches - 1}")


def is_fixed(sampler: object | None, augment: Augment | None) -> bool:
    """Whether every epoch gives the same batches: no sampler, and no augmentation or the one called ``none``."""
    return sampler is None and (augment is None or (isinstance(augment, Compose) and not augment.steps))


class Normalizer:
    """uint8 [N, C, H, W] -> ``(x / 255 - mean) / std`` as one multiplication and one addition per value.

    Differs from ``Preprocess.normalize`` by rounding only (about 1e-6). Computed in float32, then cast to ``dtype``;
    the result is dense in ``memory_format``.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        device: torch.device,
        memory_format: torch.memory_format = torch.channels_last,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        mean, std = torch.tensor(preprocess.mean).double(), torch.tensor(preprocess.std).double()
        if len(mean) != len(std) or (std <= 0).any():
            raise InputError(f"normalisation needs a mean and a positive std per channel, got {mean} and {std}")
        if memory_format not in (torch.channels_last, torch.contiguous_format):
            raise InputError(f"a loader lays batches out as channels_last or contiguous_format, not {memory_format}")
        self.channels_last = memory_format == torch.channels_last
        self.device, self.dtype = device, dtype
        self._scale = 1 / (255 * std)
        self._shift = -mean / std
        self._shape: tuple[int, ...] = ()

    def __call__(self, images: Tensor) -> Tensor:
        count, channels, height, width = images.shape
        if channels != len(self._scale):
            raise InputError(
                f"images have {channels} channels, the preprocessing's mean and std have {len(self._scale)}"
            )
        if self._shape != (channels, height, width):
            self._prepare(channels, height, width)
        # One image a row: the inner loops are then long and contiguous, which three channels on their own are not.
        if self.channels_last:
            rows = images.permute(0, 2, 3, 1).reshape(count, -1)
        else:
            rows = images.reshape(count, -1)
        values = rows.float().mul_(self._row_scale).add_(self._row_shift).to(self.dtype)
        if self.channels_last:
            return values.view(count, height, width, channels).permute(0, 3, 1, 2)
        return values.view(count, channels, height, width)

    def _prepare(self, channels: int, height: int, width: int) -> None:
        """Scale and shift of every value of one image, in the order in which the output lies in memory."""
        shape = (height, width, channels) if self.channels_last else (channels, 1, 1)
        full = (height, width, channels) if self.channels_last else (channels, height, width)

        def row(values: Tensor) -> Tensor:
            spread = values.expand(shape) if self.channels_last else values.view(shape)
            return spread.expand(full).reshape(-1).to(self.device, torch.float32)

        self._row_scale, self._row_shift = row(self._scale), row(self._shift)
        self._shape = (channels, height, width)


def augmented(
    pixels: Tensor, augment: Augment | None, normalize: Normalizer, views: int, generator: torch.Generator
) -> Tensor:
    """uint8 [N, C, H, W] -> network input [N, C, H', W'], or [2, N, C, H', W'] of two views, drawn in turn."""
    shown = [normalize(pixels if augment is None else augment(pixels, generator)) for _ in range(views)]
    return stack_views(shown, normalize)


def stack_views(shown: Sequence[Tensor], normalize: Normalizer) -> Tensor:
    """One view [N, C, H, W] as it is; several as [views, N, C, H, W], each in the normaliser's memory format."""
    if len(shown) == 1:
        return shown[0]
    if not normalize.channels_last:
        return torch.stack(list(shown))
    return torch.stack([view.permute(0, 2, 3, 1) for view in shown]).permute(0, 1, 4, 2, 3)
