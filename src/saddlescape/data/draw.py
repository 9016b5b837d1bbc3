"""The hash that tells two draws of training images apart."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import numpy as np

from saddlescape.data.paths import PackedPaths
from saddlescape.data.types import ArraySplit, FileSplit, Split


def draw_hash(*splits: Split) -> str:
    """SHA-256 over labels and images in their order, split after split, 16 hex digits.

    Of images in memory their pixels count (uint8, with the shape); of images on disk their path below the folder that
    all share, and their size in bytes.
    """
    digest = hashlib.sha256()
    for split in splits:
        digest.update(np.ascontiguousarray(split.labels.numpy().astype("<i8")).data)
        if isinstance(split, ArraySplit):
            digest.update(repr(tuple(split.images.shape)).encode())
            digest.update(split.images.contiguous().numpy().data)
        else:
            for path, size in _below_shared(split):
                digest.update(os.fsencode(f"{path}\0{size}\n"))
    return digest.hexdigest()[:16]


def _below_shared(split: FileSplit) -> Iterator[tuple[str, int]]:
    """Each path below the folder that all share, and its size in bytes; one at a time, for there may be millions."""
    folders = {os.path.dirname(text) for text in _texts(split)}  # noqa: PTH120
    shared = os.path.commonpath(folders) if folders else ""
    begins = shared.rstrip(os.sep) + os.sep
    plain = bool(shared) and os.pardir not in shared
    for text in _texts(split):
        size = os.stat(text).st_size  # noqa: PTH116
        if plain and text.startswith(begins) and os.pardir not in text:  # what relpath would say, ten times faster
            yield text[len(begins) :], size
        else:
            yield os.path.relpath(text, shared or os.curdir), size


def _texts(split: FileSplit) -> Iterator[str]:
    paths = split.paths
    return (paths.text(i) for i in range(len(paths))) if isinstance(paths, PackedPaths) else map(str, paths)
