"""``load``: from a name or a path to a ``Dataset``: chosen first, decoded after."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from saddlescape.counts import GroupRule, class_groups
from saddlescape.data.decode import Unreadable, decode_all, each
from saddlescape.data.draw import count_labels, thinned
from saddlescape.data.images import draw_hash, spread
from saddlescape.data.paths import PackedPaths
from saddlescape.data.reader import open_image
from saddlescape.data.sources.found import Found, Progress, SourceRequest
from saddlescape.data.sources.registry import find, name_of
from saddlescape.data.split import left_over, with_test
from saddlescape.data.types import ArraySplit, Dataset, FileSplit, Images, Preprocess, Split
from saddlescape.data.white_level import measure
from saddlescape.disk import expanded
from saddlescape.errors import InputError, counted

SIZES = (32, 64, 128, 224)
_SURVEY = 512
_SAMPLE = 2048


def load(
    name_or_path: str | Path,
    *,
    root: str | Path | None = None,
    imbalance: float | None = None,
    profile: str = "exp",
    seed: int = 0,
    image_size: int | None = None,
    size_limit: int | None = None,
    bad_images: str = "error",
    download: bool = False,
    progress: Progress | None = None,
    memory_limit: int = 2 << 30,
    groups: GroupRule = "auto",
    test: str | Path | None = None,
    n_max: int | None = None,
    background: int = 255,
    ties: str = "stable",
    white_level: float | None = None,
    split: str = "name",
    extra: bool = False,
    preprocess: Preprocess | None = None,
) -> Dataset:
    """Load a named data set (``digits``, ``cifar10``, ``cifar100``, ``imagenet-lt``, ``inat2018``) or a path.

    A path is a folder per class, a ``path label`` list, Hugging Face-layout parquet, or features (see
    ``sources.features``).

    - ``root``: where named data sets lie (default ``$SADDLESCAPE_DATA``, then the user cache), and what the paths in a
      list are relative to (default: the list's folder).
    - ``imbalance``, ``profile``, ``seed``: thin the training images by ``class_counts`` and ``longtail_indices``;
      ``n_max`` is the largest class present unless given. Classes keep label order. None: all images.
    - ``image_size`` S for a person's own images: default the one of 32, 64, 128, 224 that is closest (as a ratio) to
      the median shorter side of up to 512 of them, and no more than ``size_limit``. The shorter side is scaled to S,
      the centre is cut out. Their normalisation is the per-channel mean and std of their training images (of up to
      2,048 evenly spaced ones).
    - ``bad_images``: ``"error"`` names images that cannot be read; ``"skip"`` leaves them out and lists them in
      ``Dataset.skipped``.
    - ``memory_limit`` in bytes: images that would take more as uint8 stay on disk (``FileSplit``). Then
      ``"error"`` finds a damaged file when its batch is read, and ``"skip"`` reads every file once here.
    - ``download``: fetch CIFAR where it is not there. ``progress(what, done, total)`` is called during long work.
    - ``groups``: the rule for head, mid and tail (see ``class_groups``). ``test``: the test list of a list file.
    - ``extra``: ``val`` is a balanced set of images that the draw leaves out (see ``split.left_over``).
    - ``preprocess``: that of a pretrained network, in place of the data's own. Images of a named set that are all of
      one size keep it, and take mean and std.
    - ``background``: the grey level behind transparent pixels.
    - ``ties``: which of two equally frequent classes of ``imagenet-lt`` or ``inat2018`` comes first: ``"stable"``, in
      the order of the original labels, or ``"reference"`` (see ``sources.frequency_lists``).
    - ``white_level``: that of a trained model (see ``Preprocess``). None: measured over all images, where some of
      a person's own have more than 8 bits a channel.

    ``imagenet-lt`` and ``inat2018`` always stay on disk, because training sees random crops of the whole images;
    ``image_size`` S other than 224 scales their shorter side to 256 S / 224 for testing.

    Without a test set a fifth of each class (at least one image, never the last one) is set aside for it. ``split`` is
    the rule: ``"name"``, by the images' names; ``"position"``, by their positions, as in runs of older versions;
    ``"none"``, all images are the test set, to be scored by a trained network, and some of its classes suffice.

    Raises:
        InputError: one line for anything that is wrong with the input.
    """
    if bad_images not in ("error", "skip"):
        raise InputError(f"bad_images is {bad_images!r}: choose 'error' or 'skip'")
    if split not in ("name", "position", "none"):
        raise InputError(f"split is {split!r}: choose 'name', 'position' or 'none'")
    if not 0 <= background <= 255:
        raise InputError(f"background is {background}: a grey level lies between 0 and 255")
    if image_size is not None and image_size < 1:
        raise InputError(f"image_size is {image_size}: it must be at least 1 pixel")
    request = SourceRequest(
        name=name_of(name_or_path),
        root=expanded(root) if root is not None else None,
        test=_existing(test),
        download=download,
        lenient=bad_images == "skip",
        progress=progress,
        ties=ties,
        partial=split == "none",
    )
    found = find(request)
    notes = [*found.notes]
    train, held = with_test(found, split, notes)
    if not request.partial:
        counts = count_labels(train.labels, len(found.classes))
        _require(found, counts, "training images: add some or remove the class")
    kept = None
    if imbalance is not None or n_max is not None:
        kept = thinned(train, found.classes, 1.0 if imbalance is None else imbalance, profile, seed, n_max, notes)
    chosen: dict[str, Images] = {"test": held}
    if extra:
        if kept is None:
            raise InputError("--val extra takes images that the long-tailed draw leaves out: give --imbalance")
        kept, aside = left_over(train.labels, kept, seed, notes)
        chosen["val"] = train.take(aside)
    elif found.val is not None:
        chosen["val"] = found.val
    if kept is not None:
        train = train.take(kept)
    chosen = {"train": train, **chosen}
    own_network = preprocess is None
    if preprocess is None:
        preprocess = _preprocess(found, train, image_size, size_limit, background, notes)
    else:
        preprocess = _given(found, preprocess, background)
    if white_level is None and found.preprocess is None:
        white_level, lines = measure(chosen.values())
        notes += lines
    preprocess = replace(preprocess, white_level=white_level or 0.0)
    reading = _Reading(request.lenient, progress, [*found.unreadable])
    if not own_network:
        found = replace(found, preprocess=preprocess)  # nothing is left to measure
    splits, preprocess = _read(reading, found, chosen, preprocess, memory_limit, notes)
    if len(splits["test"]) == 0:
        raise InputError(f"{name_or_path}: no readable image is left for testing")
    counts = count_labels(splits["train"].labels, len(found.classes))
    if not request.partial:
        _require(found, counts, "readable training images left: repair them or remove the class")
    notes += reading.notes()
    unseen = sorted(set(range(len(counts))) - set(splits["test"].labels.tolist()))
    if unseen and not request.partial:
        notes.append(
            f"the test set lacks {len(unseen)} of {len(counts)} classes (n/a there): "
            + ", ".join(found.classes[label] for label in unseen[:8])
            + (", ..." if len(unseen) > 8 else "")
        )
    if found.published is not None:
        notes += found.published.differences(counts, count_labels(splits["test"].labels, len(counts)))
    grouped, line = class_groups(counts, name=found.name, rule=groups) if any(counts) else ({}, "")
    base = None if split == "position" else found.base
    others = [splits[name] for name in ("test", "val") if name in splits]
    return Dataset(
        name=found.name,
        train=splits["train"],
        test=splits["test"],
        val=splits.get("val"),
        classes=list(found.classes),
        class_counts=counts,
        groups=grouped,
        preprocess=preprocess,
        draw_hash=draw_hash(splits["train"]),
        augment=found.augment or "crop-flip",
        notes=[*notes, *([line] if line else [])],
        skipped=reading.skipped,
        original_labels=found.original_labels,
        held_hash=draw_hash(*others) if extra or (base is not None and not request.partial) else "",
        base=base,
    )


def _existing(path: str | Path | None) -> Path | None:
    if path is None:
        return None
    place = expanded(path)
    if not place.is_file():
        raise InputError(f"{place}: no such test list")
    return place


def _require(found: Found, counts: list[int], what: str) -> None:
    for label, count in enumerate(counts):
        if count == 0:
            raise InputError(f"{found.name}: class {found.classes[label]!r} (label {label}) has no {what}")


def _preprocess(
    found: Found, train: Images, image_size: int | None, size_limit: int | None, background: int, notes: list[str]
) -> Preprocess:
    """The given one, or one whose size follows from the images, with mean and std still to be filled in."""
    if found.preprocess is not None:
        own = found.preprocess.image_size
        if image_size not in (None, own):
            if found.streamed and image_size is not None:
                resize_to = round(image_size * found.preprocess.resize_to / own)
                notes.append(f"image size {image_size}: published results are at {own}")
                return replace(found.preprocess, image_size=image_size, resize_to=resize_to, background=background)
            has = "features" if found.preprocess.features else f"images of {own} x {own}"
            raise InputError(f"{found.name} has {has}: leave out --image-size {image_size}")
        return replace(found.preprocess, background=background)
    size = image_size
    if size is None:
        short = _median_short_side(train)
        size = min(SIZES, key=lambda s: (abs(math.log(s / short)), s))
        limited = size_limit is not None and size > size_limit
        if size_limit is not None and limited:
            size = max((s for s in SIZES if s <= size_limit), default=size_limit)
        why = f", and {size_limit} is the limit here; --image-size for more" if limited else f" (choices {SIZES})"
        notes.append(f"image size {size}: the median shorter side is {short:g} pixels{why}")
    return Preprocess(image_size=size, resize_to=size, background=background)


def _given(found: Found, preprocess: Preprocess, background: int) -> Preprocess:
    """A pretrained network's preprocessing for these images; one-channel images take the means over the channels."""
    own = found.preprocess
    if own is None or found.streamed:
        return replace(preprocess, background=background)
    mean, std = preprocess.mean, preprocess.std
    if own.channels == 1:
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    return replace(own, mean=mean, std=std, background=background)


def _median_short_side(train: Images) -> float:
    sides = []
    some = train.take(spread(len(train), _SURVEY))
    each(some, lambda images, i: sides.append(min(images.size(i))))  # unreadable ones are named when they are decoded
    return float(np.median(sides)) if sides else float(SIZES[0])


@dataclass
class _Reading:
    """What reading all splits has in common, and what it found."""

    skip: bool
    progress: Progress | None
    skipped: list[tuple[str, str]]
    remarks: list[str] = field(default_factory=list)

    def without(self, images: Images, bad: Unreadable, remarks: list[str]) -> NDArray[np.int64]:
        """The positions that are left; ``InputError`` where unreadable images are not to be skipped."""
        if bad and not self.skip:
            more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
            raise InputError(f"{bad[0][1]}{more}: repair or remove it, or leave such images out: --bad-images skip")
        self.skipped += [(images.name(i), reason) for i, reason in bad]
        self.remarks += remarks
        return np.setdiff1d(np.arange(len(images)), [i for i, _ in bad])

    def notes(self) -> list[str]:
        lines = []
        if self.skipped:
            number = counted(len(self.skipped), "image cannot be read and was", "images cannot be read and were")
            lines.append(f"{number} skipped, first: {self.skipped[0][1]}")
        if self.remarks:
            number = counted(len(self.remarks), "remark")
            lines.append(f"{number} on images that were read all the same, first: {self.remarks[0]}")
        return lines


def _read(
    reading: _Reading, found: Found, chosen: dict[str, Images], preprocess: Preprocess, memory_limit: int,
    notes: list[str],
) -> tuple[dict[str, Split], Preprocess]:  # fmt: skip
    """Decoded where the pixels of all splits fit into ``memory_limit``, else on disk; with mean and std."""
    total = sum(len(images) for images in chosen.values())
    need = 0 if preprocess.features else total * preprocess.channels * preprocess.image_size**2  # in memory already
    splits: dict[str, Split] = {}
    if need <= memory_limit and not found.streamed:
        for name, images in chosen.items():
            pixels, kept, bad, remarks = decode_all(
                images, preprocess, progress=reading.progress, what=f"reading {name} images"
            )
            reading.without(images, bad, remarks)
            splits[name] = ArraySplit(pixels, images.labels[kept], [images.name(int(i)) for i in kept])
    else:
        notes.append(f"{counted(total, 'image')} on disk, decoded when needed ({need / 2**30:.2g} GiB as pixels)")
        for name, images in chosen.items():
            if not isinstance(images, FileSplit):
                raise InputError(
                    f"{found.name}: {total:,} images take {need / 2**30:.1f} GiB as pixels, over the memory limit of "
                    f"{memory_limit / 2**30:.1f} GiB: raise the limit, choose a smaller image size, or unpack them as "
                    "files"
                )
            if reading.skip:
                images = images.take(reading.without(images, *_read_once(images, preprocess, reading.progress)))
            packed = images.paths if isinstance(images.paths, PackedPaths) else PackedPaths.pack(images.paths)
            splits[name] = FileSplit(packed, images.labels)
    train = splits["train"]
    if preprocess.features and isinstance(train, ArraySplit) and len(train):
        return splits, standardized(train.images, preprocess, notes)
    if found.preprocess is None and len(train):
        some = train.take(spread(len(train), _SAMPLE))
        pixels, _, bad, remarks = decode_all(some, preprocess)
        reading.without(some, bad, remarks)
        preprocess = _measured(pixels, preprocess, notes)
    return splits, preprocess


def _read_once(
    images: FileSplit, preprocess: Preprocess, progress: Progress | None
) -> tuple[Unreadable, list[str]]:
    """Every image decoded in full and dropped; see ``decode.each``."""

    def decode(images: Images, i: int) -> None:
        open_image(images.content(i), name=images.name(i), white_level=preprocess.white_level)

    return each(images, decode, progress=progress, what="checking images")


def standardized(
    features: Tensor, preprocess: Preprocess, notes: list[str], one_scale: bool = False
) -> Preprocess:
    """Mean and std of each column of the training rows, from float64 sums; a constant column has std 1.

    ``one_scale``: the root mean square of the stds for every column, whose unit is the same.
    """
    values = features.flatten(1).double()
    mean, std = values.mean(dim=0), values.std(dim=0, correction=0)
    constant = std <= 1e-6 * values.abs().amax(dim=0)
    if one_scale and not constant.all():
        std = std.square().mean().sqrt().expand_as(std)
        constant = constant & False
    notes.append(
        f"features: {counted(values.shape[1], 'column')}, standardised by mean and {'one ' if one_scale else ''}std of "
        f"{len(values):,} training rows"
        + (f"; {counted(int(constant.sum()), 'column is', 'columns are')} constant" if constant.any() else "")
    )
    return replace(preprocess, mean=tuple(mean.tolist()), std=tuple(std.masked_fill(constant, 1.0).tolist()))


def _measured(images: Tensor, preprocess: Preprocess, notes: list[str]) -> Preprocess:
    """Mean and std per channel over all pixels, from exact integer sums, rounded to 4 digits; std at least 0.01."""
    values = images.numpy().astype(np.int64)
    mean = values.mean(axis=(0, 2, 3)) / 255
    square = (values**2).mean(axis=(0, 2, 3)) / 255**2
    std = np.sqrt(np.maximum(square - mean**2, 0))
    notes.append(f"normalisation: mean and std of {counted(len(images), 'training image')}; augmentation crop-flip")
    return replace(
        preprocess,
        mean=tuple(round(float(v), 4) for v in mean),
        std=tuple(max(round(float(v), 4), 0.01) for v in std),
    )
