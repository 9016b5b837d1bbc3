"""The loader for a split that fits into memory: it lies whole on the device and is augmented there, in batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from saddlescape.data.augment import Augment
from saddlescape.data.batching import (
    AUGMENT,
    ORDER,
    Normalizer,
    augmented,
    batch_bounds,
    check_loader,
    check_start,
    checked_labels,
    derived_generator,
    is_fixed,
)
from saddlescape.data.samplers import Sampler
from saddlescape.data.types import ArraySplit, Batch, Preprocess
from saddlescape.errors import InputError


class ResidentLoader:
    """Batches of an ``ArraySplit`` whose uint8 pixels live on ``device``.

    ``sampler`` None shows the images in order (evaluation); ``augment`` None leaves them as they are. ``views=2``
    gives two independently augmented views, ``inputs`` then being [2, N, C, H, W] with each view in
    ``memory_format``. ``inputs`` are ``dtype``, ``targets`` and ``indices`` int64; all lie on ``device``.

    Batch b of epoch t is a function of (``seed``, t, b) and nothing else, so ``epoch(t, start_batch=b)`` goes on
    with the same bits as a run that was never stopped. No image is dropped: the last batch may be smaller, and if it
    would hold a single image, that image joins the batch before.
    """

    def __init__(
        self,
        split: ArraySplit,
        preprocess: Preprocess,
        *,
        batch_size: int,
        device: str | torch.device = "cpu",
        augment: Augment | None = None,
        sampler: Sampler | None = None,
        seed: int = 0,
        views: int = 1,
        memory_format: torch.memory_format = torch.channels_last,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_loader(batch_size, seed, views)
        images, labels = split.images, checked_labels(split)
        if images.dtype != torch.uint8 or images.ndim != 4 or len(images) != len(labels) or len(labels) == 0:
            raise InputError(
                f"a split needs uint8 images [N, C, H, W] and as many labels, N >= 1, got "
                f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)} and {len(labels)} labels"
            )
        self.split = split
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.augment, self.sampler = augment, sampler
        self.seed, self.views = seed, views
        self._normalize = Normalizer(preprocess, self.device, memory_format, dtype)
        # [N, H, W, C]: crops copy runs of it and networks want it; index_select of a channels-last [N, C, H, W]
        # tensor would hand back plain planes.
        self._pixels = images.to(self.device).permute(0, 2, 3, 1).contiguous()
        self._labels = labels.to(self.device)
        self._bounds = batch_bounds(self.num_samples, batch_size)

    @property
    def num_samples(self) -> int:
        """Images shown in an epoch."""
        return len(self.split) if self.sampler is None else len(self.sampler)

    @property
    def fixed(self) -> bool:
        """Whether every epoch gives the same batches: no sampler and no augmentation."""
        return is_fixed(self.sampler, self.augment)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self._bounds)

    def epoch(self, t: int = 0, start_batch: int = 0) -> Iterator[Batch]:
        """The batches of epoch ``t`` (0-based) from number ``start_batch`` on."""
        check_start(t, start_batch, len(self))
        return self._batches(t, start_batch)

    def _batches(self, t: int, start_batch: int) -> Iterator[Batch]:
        order = self.order(t).to(self.device)
        for number in range(start_batch, len(self)):
            begin, end = self._bounds[number]
            indices = order[begin:end]
            pixels = self._pixels.index_select(0, indices).permute(0, 3, 1, 2)
            generator = derived_generator(self.seed, AUGMENT, t, number)
            inputs = augmented(pixels, self.augment, self._normalize, self.views, generator)
            yield Batch(inputs, self._labels.index_select(0, indices), indices)

    def order(self, t: int) -> Tensor:
        """int64 [num_samples] on the host: the positions that epoch ``t`` shows, in order."""
        if self.sampler is None:
            return torch.arange(len(self.split))
        return self.sampler.indices(t, derived_generator(self.seed, ORDER, t))
