"""Decoded pixels of parquet shards, kept in the user's cache folder: a second load skips the decoding.

On two busy cores, CIFAR-10 at imbalance 100 (22,406 lossless WebP images) takes 4 to 8 s to decode and 0.2 s to read
back. An entry is found by what it was made from (shards with size and time of change, rows, size of the images,
version of the reader and of Pillow), carries its own SHA-256, and is written under another name and renamed.
``SADDLESCAPE_CACHE=off`` switches all this off.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

import numpy as np
import PIL
from numpy.typing import NDArray

from saddlescape.data.places import user_cache
from saddlescape.data.reader import READER_VERSION
from saddlescape.data.types import Preprocess
from saddlescape.disk import whole
from saddlescape.errors import InputError

# Fewer images are decoded faster than it is worth to keep them.
MIN_IMAGES = 2000
MAX_BYTES = 1 << 30
_DIGEST = 32


def entry(identity: str, rows: NDArray[np.int64], preprocess: Preprocess) -> Path | None:
    """Where the pixels of these rows are or would be kept; None if they are not worth it or the cache is off."""
    if len(rows) < MIN_IMAGES or os.environ.get("SADDLESCAPE_CACHE", "").lower() in ("off", "0", "no"):
        return None
    shape = (preprocess.image_size, preprocess.resize_to, preprocess.channels, preprocess.background,
             preprocess.white_level, *[word for word in (preprocess.interpolation,) if word != "bilinear"])  # fmt: skip
    digest = hashlib.sha256(f"{identity}\n{shape}\n{READER_VERSION}\n{PIL.__version__}\n".encode())
    digest.update(rows.astype("<i8").tobytes())
    return user_cache() / "pixels" / f"{digest.hexdigest()[:32]}.bin"


def read(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    """The pixels kept there, uint8 of this shape, or None if there are none or they are damaged."""
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError:
        return None
    pixels = content[_DIGEST:]
    if pixels.size != int(np.prod(shape)) or hashlib.sha256(pixels.data).digest() != content[:_DIGEST].tobytes():
        return None
    with contextlib.suppress(OSError):  # a read-only cache is still a cache
        os.utime(path)
    return pixels.reshape(shape)


def write(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Keep pixels; entries unused for longest go when all together exceed 1 GiB. A cache that cannot be written to (a
    full disk, a read-only home) is none: nothing depends on it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as temporary, temporary.open("wb") as file:
            file.write(hashlib.sha256(pixels.data).digest())
            file.write(pixels.data)
        _prune(path.parent)
    except (OSError, InputError):
        return


def _prune(folder: Path) -> None:
    kept = sorted(((p.stat().st_mtime_ns, p.stat().st_size, p) for p in folder.glob("*.bin")), reverse=True)
    total = 0
    for _, size, path in kept:
        total += size
        if total > MAX_BYTES:
            path.unlink(missing_ok=True)
