"""The loader that suits a split."""

from __future__ import annotations

import torch

from saddlescape.data.augment import Augment
from saddlescape.data.resident import ResidentLoader
from saddlescape.data.samplers import Sampler
from saddlescape.data.stream import Decode, StreamLoader
from saddlescape.data.types import ArraySplit, Preprocess, Split
from saddlescape.errors import InputError

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
) -> Loader:
    """A ``ResidentLoader`` for an ``ArraySplit``, a ``StreamLoader`` (which needs ``decode``) for a ``FileSplit``.

    ``workers`` and ``start_method`` concern the latter only. Train with an augmentation and a sampler
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
    if decode is None:
        raise InputError("a split of files needs decode: a picklable function from a path to uint8 [C, S, S]")
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
    )
