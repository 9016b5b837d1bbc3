"""The loader that suits a split."""

from __future__ import annotations

import torch

from saddlescape.data.augment import Augment
from saddlescape.data.resident import ResidentLoader
from saddlescape.data.samplers import Sampler
from saddlescape.data.stream import StreamLoader
from saddlescape.data.types import ArraySplit, Preprocess, Split


def build_loader(
    split: Split,
    preprocess: Preprocess,
    *,
    batch_size: int,
    device: str | torch.device = "cpu",
    augment: Augment | None = None,
    sampler: Sampler | None = None,
    seed: int = 0,
    workers: int | None = None,
    part: tuple[int, int] = (0, 1),
) -> ResidentLoader | StreamLoader:
    """A ``ResidentLoader`` for an ``ArraySplit``, a ``StreamLoader`` for a ``FileSplit``.

    ``workers`` and ``part`` concern the latter only: an ``ArraySplit`` gives whole batches, which cost little, and
    ``parts.part_of`` cuts them. Train with an augmentation and a sampler (``InstanceBalanced`` is the ordinary
    shuffle); evaluate with neither.
    """
    if isinstance(split, ArraySplit):
        return ResidentLoader(
            split, preprocess, batch_size=batch_size, device=device, augment=augment, sampler=sampler, seed=seed
        )
    return StreamLoader(
        split, preprocess, batch_size=batch_size, device=device, augment=augment, sampler=sampler, seed=seed,
        workers=workers, part=part,
    )  # fmt: skip
