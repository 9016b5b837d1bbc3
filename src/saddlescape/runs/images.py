"""Which images a run was trained on and which it held out: ``RUN/images.csv``, and what has changed since."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from saddlescape.data.paths import relative_names
from saddlescape.data.sources.registry import dataset_names
from saddlescape.data.types import ArraySplit, Dataset, Split
from saddlescape.disk import read_text, write_text
from saddlescape.errors import InputError
from saddlescape.records.config import RunConfig

IMAGES = "images.csv"
BEFORE = "first stage"  # images that another run, whose first stage was taken, was trained on


class Image(NamedTuple):
    """``name`` below the data's folder, ``size`` of its file in bytes ("0": in a container), ``pixels``: SHA-256 of
    its pixels as the network sees them, 16 hex digits ("": it stays on disk)."""

    name: str
    size: str
    pixels: str


def identify(split: Split, base: Path | None) -> list[Image]:
    """What identifies the images of a split, in their order."""
    names = list(split.names or [""] * len(split))
    sizes = [_size(name) for name in names]
    pixels = [""] * len(names)
    if isinstance(split, ArraySplit):
        pixels = [hashlib.sha256(image.contiguous().numpy().data).hexdigest()[:16] for image in split.images]
    return [Image(*one) for one in zip(relative_names(names, base or Path()), sizes, pixels, strict=True)]


def _size(name: str) -> str:
    try:
        return str(os.stat(name).st_size)  # noqa: PTH116  # there may be a million
    except (OSError, ValueError):
        return "0"


def write_images(folder: Path, dataset: Dataset, source: Path | None = None) -> None:
    """Record the images of a person's own data, and those that a first stage of the run ``source`` was trained on."""
    rows = []
    for name, split in _splits(dataset):
        rows += [(name, *image) for image in identify(split, dataset.base)]
    rows += [(BEFORE, *image) for image in (source and trained_images(source)) or ()]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("split", *Image._fields), *rows])
    write_text(folder / IMAGES, text.getvalue())


def read_images(folder: Path) -> dict[str, list[Image]] | None:
    """Images by split; None where none were recorded (named data sets, run folders of older versions).

    Raises:
        InputError: the file is damaged.
    """
    path = folder / IMAGES
    if not path.exists():
        return None
    found: dict[str, list[Image]] = {}
    try:
        rows = list(csv.reader(io.StringIO(read_text(path))))
        for split, *image in rows[1:]:
            found.setdefault(split, []).append(Image(*image))
    except (ValueError, TypeError, csv.Error) as error:
        raise InputError(f"{path}: damaged ({error}); restore it, or delete it to do without") from error
    return found


def trained_images(folder: Path) -> list[Image] | None:
    """The images that a run's weights have seen; None where none were recorded."""
    found = read_images(folder)
    return None if found is None else [*found.get("train", ()), *found.get(BEFORE, ())]


def among(split: Split, base: Path | None, trained: Iterable[Image]) -> np.ndarray:
    """Which images of ``split`` are among ``trained``, bool [N]: the same pixels; the same name and file size where
    one of the two stays on disk, so that its pixels are not known."""
    pixels, named, deferred = set(), set(), set()
    for image in trained:
        pixels.add(image.pixels)
        named.add((image.name, image.size))
        if not image.pixels:
            deferred.add((image.name, image.size))
    found = [
        (image.pixels != "" and image.pixels in pixels)
        or (image.size != "0" and (image.name, image.size) in (deferred if image.pixels else named))
        for image in identify(split, base)
    ]
    return np.array(found, dtype=bool)


def require_same(
    folder: Path, config: RunConfig, then: Mapping[str, Any], dataset: Dataset, repair: str, held: bool = True
) -> None:
    """``then`` (a checkpoint's meta or a result) has the hashes and classes of the images that the run was made on.

    ``held``: the test and validation images must be the same too.

    Raises:
        InputError: ``dataset`` holds others; the message says what has changed, and ``repair``.
    """
    if then.get("draw_hash") != dataset.draw_hash:
        what = f"was trained on other images (draw {then.get('draw_hash')}, now {dataset.draw_hash})"
    elif held and dataset.held_hash and then.get("held_hash", "") not in ("", dataset.held_hash):
        what = "held out other images for testing"
    elif then.get("classes", dataset.classes) != dataset.classes:
        what = f"was trained on classes of other names ({_first_difference(then['classes'], dataset.classes)})"
    else:
        return
    raise InputError(f"{folder} {what}{_changes(folder, config, dataset)}: {repair}")


def _first_difference(old: list[str], new: list[str]) -> str:
    return next((f"{a!r}, now {b!r}" for a, b in zip(old, new, strict=False) if a != b), f"{len(old)}, now {len(new)}")


def _changes(folder: Path, config: RunConfig, dataset: Dataset) -> str:
    then = read_images(folder)
    if then is None or dataset.base is None:
        if config.data.split == "position" and config.data.name not in dataset_names():
            return (
                "; it is of an older version, which split by position: an image that is added to or deleted from "
                f"{config.data.name} moves others from training to testing"
            )
        return ""
    old = {image for split, images in then.items() if split != BEFORE for image in images}
    now = {image for _, split in _splits(dataset) for image in identify(split, dataset.base)}
    lists = (("new", sorted(now - old)), ("gone", sorted(old - now)))
    changes = ", ".join(f"{len(some)} {word} (first: {some[0].name})" for word, some in lists if some)
    return f"; in {config.data.name}: {changes}" if changes else ""


def _splits(dataset: Dataset) -> list[tuple[str, Split]]:
    found = [("train", dataset.train), ("val", dataset.val), ("test", dataset.test)]
    return [(name, split) for name, split in found if split is not None]
