"""The loader that suits a split."""

from __future__ import annotations

import torch

from saddlescape.data.augment import Augment
from saddlescape.data.resident import ResidentLoader
from saddlescape.data.samplers import Sampler
from saddlescape.data.stream import Decode, StreamLoader
from saddlescape.data.types import ArraySplit, Preprocess, Split

Loader = ResidentLoader | StreamLoader


def build_loader(
    split: Split,
    preprocess: Preprocess,
    *,
    batch_size: int,
    decode: Decode | None = None,
    device: str | torch.device = "cpu",
    augment: Augment | None = None,
    sampler: Sampler | None = None,
    seed: int = 0,
    views: int = 1,
    memory_format: torch.memory_format = torch.channels_last,
    dtype: torch.dtype = torch.float32,
    workers: int | None = None,
    start_method: str | None = None,
    prefetch: int = 2,
    bad_images: str = "error",
    part: tuple[int, int] = (0, 1),
) -> Loader:
    """A ``ResidentLoader`` for an ``ArraySplit``, a ``StreamLoader`` for a ``FileSplit``.

    ``decode`` (None: the house's reader), ``workers``, ``start_method``, ``prefetch`` and ``bad_images`` concern the
    latter only, and so does ``part``, (rank, size) of the process: an ``ArraySplit`` gives whole batches, which cost
    little, and ``parts.part_of`` cuts them. Train with an augmentation and a sampler
    (``InstanceBalanced`` is the ordinary shuffle); evaluate with neither.
    """
    if isinstance(split, ArraySplit):
        return ResidentLoader(
            split,
            preprocess,
            batch_size=batch_size,
            device=device,
            augment=augment,
            sampler=sampler,
            seed=seed,
            views=views,
            memory_format=memory_format,
            dtype=dtype,
        )
    return StreamLoader(
        split,
        preprocess,
        decode,
        batch_size=batch_size,
        device=device,
        augment=augment,
        sampler=sampler,
        seed=seed,
        views=views,
        memory_format=memory_format,
        dtype=dtype,
        workers=workers,
        start_method=start_method,
        prefetch=prefetch,
        bad_images=bad_images,
        part=part,
    )
