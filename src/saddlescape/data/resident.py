"""The loader for a split that fits into memory: it lies whole on the device and is augmented there, in batches."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from saddlescape.data.batching import AUGMENT, EpochLoader, derived_generator
from saddlescape.data.types import ArraySplit, Batch, Preprocess
from saddlescape.errors import InputError


class ResidentLoader(EpochLoader):
    """Batches of an ``ArraySplit`` whose uint8 pixels, or float32 features, live on ``device``."""

    def _prepare(self, split: ArraySplit, preprocess: Preprocess) -> None:
        images = split.images
        kind = torch.float32 if preprocess.features else torch.uint8
        if images.dtype != kind or images.ndim != 4:
            raise InputError(
                f"a split in memory needs {str(kind).removeprefix('torch.')} images [N, C, H, W], got "
                f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}"
            )
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
