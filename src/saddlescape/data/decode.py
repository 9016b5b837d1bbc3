"""Read many images at once, on threads: Pillow lets go of the interpreter meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saddlescape.data import cache
from saddlescape.data.cores import usable_cores
from saddlescape.data.reader import collect_remarks
from saddlescape.data.sources.found import Progress
from saddlescape.data.types import ArraySplit, EncodedSplit, Images, Preprocess
from saddlescape.errors import InputError

_CHUNK = 32

Unreadable = list[tuple[int, str]]
"""Position and reason, ascending."""


def each(
    images: Images, work: Callable[[Images, int], None], *, workers: int | None = None,
    progress: Progress | None = None, what: str = "reading images",
) -> tuple[Unreadable, list[str]]:
    """Call ``work(images, i)`` for every position.

    Args:
        work: gets the images, those of a container with their bytes in memory, and stores what it finds.
        workers: threads; None: one a core.

    Returns:
        The images for which ``work`` raised ``InputError``, and remarks on the others, a line each with the name.
    """
    if workers is not None and workers < 1:
        raise InputError(f"reading images needs at least one worker, got {workers}")
    images = images.loaded() if isinstance(images, EncodedSplit) else images
    count = len(images)

    def some(start: int) -> tuple[Unreadable, list[str]]:
        failed, odd = [], []
        for i in range(start, min(start + _CHUNK, count)):
            with collect_remarks() as lines:
                try:
                    work(images, i)
                    odd += lines
                except InputError as error:
                    failed.append((i, str(error)))
        return failed, odd

    bad: Unreadable = []
    remarks: list[str] = []
    starts = range(0, count, _CHUNK)
    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        for start, (failed, odd) in zip(starts, pool.map(some, starts), strict=True):
            bad += failed
            remarks += odd
            if progress:
                progress(what, min(start + _CHUNK, count), count)
    return bad, remarks


def decode_all(
    images: Images, preprocess: Preprocess, *, progress: Progress | None = None, what: str = "reading images"
) -> tuple[Tensor, NDArray[np.int64], Unreadable, list[str]]:
    """uint8 [n, C, S, S], the positions of these n (ascending), the unreadable images, and remarks on the others."""
    everything = np.arange(len(images))
    if isinstance(images, ArraySplit):
        return images.images, everything, [], []
    shape = (len(images), preprocess.channels, preprocess.image_size, preprocess.image_size)
    kept = cache.entry(images.identity, images.rows, preprocess) if isinstance(images, EncodedSplit) else None
    known = cache.read(kept, shape) if kept else None
    if known is not None:
        return torch.from_numpy(known), everything, [], []
    pixels = np.empty(shape, dtype=np.uint8)

    def decode(images: Images, i: int) -> None:
        pixels[i] = images.pixels(i, preprocess).numpy()

    bad, remarks = each(images, decode, progress=progress, what=what)
    if bad:
        good = np.setdiff1d(everything, [i for i, _ in bad])
        return torch.from_numpy(pixels[good]), good, bad, remarks
    if kept:
        cache.write(kept, pixels)
    return torch.from_numpy(pixels), everything, [], remarks
