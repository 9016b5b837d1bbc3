"""Decode many pictures at once into one uint8 tensor, on threads: Pillow lets go of the interpreter meanwhile."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saddlescape.data import cache
from saddlescape.data.inspection import inspect
from saddlescape.data.reader import collect_remarks
from saddlescape.data.sources.found import Progress
from saddlescape.data.types import ArraySplit, EncodedSplit, Images, Preprocess
from saddlescape.errors import InputError

_CHUNK = 64


def decode_all(
    pictures: Images,
    preprocess: Preprocess,
    *,
    progress: Progress | None = None,
    what: str = "reading images",
    remarks: list[str] | None = None,
) -> tuple[Tensor, NDArray[np.int64], list[tuple[int, str]]]:
    """uint8 [n, C, S, S], the positions these n are of (ascending), and the unreadable ones as (position, reason).

    What is odd about readable ones is added to ``remarks``, a line each.
    """
    if isinstance(pictures, ArraySplit):
        return pictures.images, np.arange(len(pictures)), []
    size, total = preprocess.image_size, len(pictures)
    shape = (total, preprocess.channels, size, size)
    kept = None
    if isinstance(pictures, EncodedSplit):
        kept = cache.entry(pictures.identity, pictures.rows, preprocess)
        known = cache.read(kept, shape) if kept else None
        if known is not None:
            return torch.from_numpy(known), np.arange(total), []
        pictures = pictures.loaded()
    images = np.empty(shape, dtype=np.uint8)
    bad: list[tuple[int, str]] = []

    def decode(start: int) -> tuple[list[tuple[int, str]], list[str]]:
        failed, odd = [], []
        for i in range(start, min(start + _CHUNK, total)):
            with collect_remarks() as lines:
                try:
                    images[i] = pictures.pixels(i, preprocess).numpy()
                    odd += lines
                except InputError as error:
                    failed.append((i, str(error)))
        return failed, odd

    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        starts = range(0, total, _CHUNK)
        for start, (failed, odd) in zip(starts, pool.map(decode, starts), strict=True):
            bad += failed
            if remarks is not None:
                remarks += odd
            if progress:
                progress(what, min(start + _CHUNK, total), total)
    if not bad:
        if kept:
            cache.write(kept, images)
        return torch.from_numpy(images), np.arange(total), []
    good = np.setdiff1d(np.arange(total), [i for i, _ in bad])
    return torch.from_numpy(images[good]), good, bad


def check_all(
    pictures: Images, *, progress: Progress | None = None, white_level: float = 0.0
) -> list[tuple[int, str]]:
    """Decode every picture and keep nothing: the unreadable ones as (position, reason), ascending."""
    if isinstance(pictures, ArraySplit):
        return []
    return sorted(inspect(pictures, progress=progress, white_level=white_level).unreadable.items())
