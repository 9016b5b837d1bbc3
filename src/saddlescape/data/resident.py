"""The loader for a split that fits into memory: it lies whole on the device and is augmented there, in batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from saddlescape.data.augment import Augment
from saddlescape.data.batching import AUGMENT, EpochLoader, Normalizer, derived_generator
from saddlescape.data.samplers import Sampler
from saddlescape.data.types import ArraySplit, Batch, Preprocess
from saddlescape.errors import InputError


class ResidentLoader(EpochLoader):
    """Batches of an ``ArraySplit`` whose uint8 pixels live on ``device``.

    ``sampler`` None shows the images in order (evaluation); ``augment`` None leaves them as they are. ``inputs`` are
    float32, channels-last; ``targets`` and ``indices`` int64; all lie on ``device``.
    """

    def __init__(
        self, split: ArraySplit, preprocess: Preprocess, *, batch_size: int, device: str | torch.device = "cpu",
        augment: Augment | None = None, sampler: Sampler | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(split, batch_size=batch_size, device=device, augment=augment, sampler=sampler, seed=seed)
        images = split.images
        if images.dtype != torch.uint8 or images.ndim != 4 or len(images) != len(self.labels) or len(images) == 0:
            raise InputError(
                f"a split needs uint8 images [N, C, H, W] and as many labels, N >= 1, got "
                f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)} and {len(self.labels)} labels"
            )
        self._normalize = Normalizer(preprocess, self.device)
        # [N, H, W, C]: crops copy runs of it and networks want it; index_select of a channels-last [N, C, H, W]
        # tensor would hand back plain planes.
        self._pixels = images.to(self.device).permute(0, 2, 3, 1).contiguous()
        self._labels = self.labels.to(self.device)

    def _batches(self, t: int, start_batch: int) -> Iterator[Batch]:
        order = self.order(t).to(self.device)
        for number in range(start_batch, len(self)):
            begin, end = self.bounds[number]
            indices = order[begin:end]
            pixels = self._pixels.index_select(0, indices).permute(0, 3, 1, 2)
            if self.augment is not None:
                pixels = self.augment(pixels, derived_generator(self.seed, AUGMENT, t, number))
            yield Batch(self._normalize(pixels), self._labels.index_select(0, indices), indices)
