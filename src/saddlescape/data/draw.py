"""The hash that tells two draws of training images apart."""

from __future__ import annotations

import hashlib
import os

import numpy as np

from saddlescape.data.types import ArraySplit, Split


def draw_hash(split: Split) -> str:
    """SHA-256 over labels and images in their order, 16 hex digits.

    Of images in memory their pixels count (uint8, with the shape); of images on disk their path below the folder that
    all share, and their size in bytes.
    """
    digest = hashlib.sha256()
    digest.update(np.ascontiguousarray(split.labels.numpy().astype("<i8")).data)
    if isinstance(split, ArraySplit):
        digest.update(repr(tuple(split.images.shape)).encode())
        digest.update(split.images.contiguous().numpy().data)
    else:
        shared = os.path.commonpath([path.parent for path in split.paths]) if split.paths else ""
        for path in split.paths:
            digest.update(os.fsencode(f"{os.path.relpath(path, shared)}\0{path.stat().st_size}\n"))
    return digest.hexdigest()[:16]
