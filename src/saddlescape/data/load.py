"""``load``: from a name or a path to a ``Dataset``: chosen first, decoded after."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saddlescape.counts import GroupRule, class_groups
from saddlescape.data.decode import check_all, decode_all
from saddlescape.data.draw import draw_hash
from saddlescape.data.paths import PackedPaths, relative_names
from saddlescape.data.profiles import class_counts as profile_counts
from saddlescape.data.profiles import count_labels, longtail_indices
from saddlescape.data.sources.found import Found, Progress, Request
from saddlescape.data.sources.registry import find, name_of
from saddlescape.data.split import stratified_split
from saddlescape.data.types import ArraySplit, Dataset, EncodedSplit, FileSplit, Images, Preprocess, Split
from saddlescape.data.white_level import measure
from saddlescape.disk import expanded
from saddlescape.errors import InputError, counted

TEST_FRACTION = 0.2
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
) -> Dataset:
    """Load a named data set (``digits``, ``cifar10``, ``cifar100``, ``imagenet-lt``, ``inat2018``) or a path.

    A path is a folder per class, a ``path label`` list, or Hugging Face-layout parquet.

    - ``root``: where named data sets lie (default ``$SADDLESCAPE_DATA``, then the user cache), and what the paths in a
      list are relative to (default: the list's folder).
    - ``imbalance``, ``profile``, ``seed``: thin the training images by ``class_counts`` and ``longtail_indices``;
      ``n_max`` is the largest class present unless given. Classes keep label order. None: all images.
    - ``image_size`` S for people's own pictures: default the one of 32, 64, 128, 224 that is closest (as a ratio) to
      the median shorter side of up to 512 of them, and no more than ``size_limit``. The shorter side is scaled to S,
      the centre is cut out. Their normalisation is the per-channel mean and std of their training images (of up to
      2,048 evenly spaced ones).
    - ``bad_images``: ``"error"`` names pictures that cannot be read; ``"skip"`` leaves them out and lists them in
      ``Dataset.skipped``.
    - ``memory_limit`` in bytes: pictures that would take more as uint8 stay on disk (``FileSplit``). Then
      ``"error"`` finds a damaged file when its batch is read, and ``"skip"`` reads every file once here.
    - ``download``: fetch CIFAR where it is not there. ``progress(what, done, total)`` is told of long work.
    - ``groups``: the rule for head, mid and tail (see ``class_groups``). ``test``: the test list of a list file.
    - ``background``: the grey level behind transparent pixels.
    - ``ties``: which of two equally frequent classes of ``imagenet-lt`` or ``inat2018`` comes first: ``"stable"``, in
      the order of the original labels, or ``"reference"`` (see ``sources.frequency``).
    - ``white_level``: that of a trained model (see ``Preprocess``). None: measured over all images, where some of
      people's own have more than 8 bits a channel.

    ``imagenet-lt`` and ``inat2018`` always stay on disk, because training sees random crops of the whole pictures;
    ``image_size`` S other than 224 scales their shorter side to 256 S / 224 for testing.

    Without a test set a fifth of each class (at least one image, never the last one) is set aside for it. ``split`` is
    the rule: ``"name"``, by the images' names; ``"position"``, by their positions, as in runs of older versions;
    ``"none"``, all images are the test set, to be scored by a trained network, and some of its classes suffice.

    Raises ``InputError``: one line for anything that is wrong with the input.
    """
    if bad_images not in ("error", "skip"):
        raise InputError(f"bad_images is {bad_images!r}: choose 'error' or 'skip'")
    if split not in ("name", "position", "none"):
        raise InputError(f"split is {split!r}: choose 'name', 'position' or 'none'")
    if not 0 <= background <= 255:
        raise InputError(f"background is {background}: a grey level lies between 0 and 255")
    if image_size is not None and image_size < 1:
        raise InputError(f"image_size is {image_size}: it must be at least 1 pixel")
    request = Request(
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
    train, held = _with_test(found, split, notes)
    if not request.partial:
        _require_images(found.classes, train)
    if imbalance is not None or n_max is not None:
        train = _thinned(train, found.classes, 1.0 if imbalance is None else imbalance, profile, seed, n_max, notes)
    work = _Work(found, bad_images, progress, [*found.unreadable])
    parts: dict[str, Images] = {"train": train, "test": held}
    if found.val is not None:
        parts["val"] = found.val
    preprocess = _preprocess(found, parts["train"], image_size, size_limit, background, notes)
    if white_level is None and found.preprocess is None:
        white_level, remarks = measure(parts.values())
        notes += remarks
    preprocess = replace(preprocess, white_level=white_level or 0.0)
    splits, preprocess = _splits(work, parts, preprocess, memory_limit, notes)
    if len(splits["test"]) == 0:
        raise InputError(f"{name_or_path}: no readable image is left for testing")
    counts = count_labels(splits["train"].labels, len(found.classes))
    for label, count in enumerate(counts):
        if count == 0 and not request.partial:
            raise InputError(f"class {found.classes[label]!r} has no readable training image left")
    if work.skipped:
        number = counted(len(work.skipped), "image cannot be read and was", "images cannot be read and were")
        notes.append(f"{number} skipped, first: {work.skipped[0][1]}")
    if work.remarks:
        number = counted(len(work.remarks), "remark")
        notes.append(f"{number} on images that were read all the same, first: {work.remarks[0]}")
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
        skipped=work.skipped,
        original_labels=found.original_labels,
        held_hash="" if base is None or request.partial else draw_hash(*others),
        base=base,
    )


def _existing(path: str | Path | None) -> Path | None:
    if path is None:
        return None
    place = expanded(path)
    if not place.is_file():
        raise InputError(f"{place}: no such test list")
    return place


def _with_test(found: Found, split: str, notes: list[str]) -> tuple[Images, Images]:
    if found.test is not None:
        return found.train, found.test
    if split == "none":
        return found.train.take(np.arange(0)), found.train
    names = None
    if split == "name" and found.base is not None:
        names = relative_names((found.train.name(i) for i in range(len(found.train))), found.base)
    stay, aside = stratified_split(found.train.labels, TEST_FRACTION, names=names)
    if len(aside) == 0:
        raise InputError(f"{found.name}: no class has two images, so none can be set aside for testing: add images")
    single = [found.classes[c] for c, n in enumerate(count_labels(found.train.labels, len(found.classes))) if n == 1]
    notes.append(
        f"no test set given: {counted(len(aside), 'image')} set aside (a fifth of each class, at least one; fixed)"
        + (f"; classes with a single image keep it for training: {', '.join(single[:8])}" if single else "")
    )
    return found.train.take(stay), found.train.take(aside)


def _require_images(classes: list[str], train: Images) -> None:
    for label, count in enumerate(count_labels(train.labels, len(classes))):
        if count == 0:
            raise InputError(
                f"class {classes[label]!r} (label {label}) has no training images: add some or remove the class"
            )


def _thinned(
    train: Images, classes: list[str], imbalance: float, profile: str, seed: int, n_max: int | None, notes: list[str]
) -> Images:
    present = count_labels(train.labels, len(classes))
    largest = max(present) if n_max is None else n_max
    wanted = profile_counts(len(classes), largest, imbalance, profile)
    if 0 in wanted:
        raise InputError(
            f"imbalance {imbalance:g} leaves class {classes[wanted.index(0)]!r} without images "
            f"(largest class: {largest}): choose a smaller imbalance"
        )
    if seed == 0 and _is_drawn(train.labels.numpy(), wanted):
        notes.append(
            f"long-tailed draw: the first {sum(wanted):,} training images of this copy are the {profile} profile of "
            f"imbalance {imbalance:g} already and are taken as they are"
        )
        return train.take(np.arange(sum(wanted)))
    for label, (want, there) in enumerate(zip(wanted, present, strict=True)):
        if want > there:
            remedies = ["choose a larger imbalance"] if label else []
            if n_max is not None:
                remedies.append(f"choose n_max at most {_fitting(present, imbalance, profile)}")
            elif not label:
                remedies.append("order the classes by size, as the profile gives the first one most; or no imbalance")
            raise InputError(
                f"class {classes[label]!r} has too few images for imbalance {imbalance:g} ({profile}): {want} wanted, "
                f"{there} present; {' or '.join(remedies)}"
            )
    notes.append(f"long-tailed draw: {profile} profile, imbalance {imbalance:g}, seed {seed}, {sum(wanted):,} images")
    return train.take(longtail_indices(train.labels, wanted, seed))


def _is_drawn(labels: NDArray[np.int64], wanted: list[int]) -> bool:
    """Whether the leading images are a ready-made draw: as many of each class as wanted, no more and no fewer.

    Long-tailed sets are passed on in shards, the rarest profile first; drawing from such a copy again would give
    other images than its maker meant. Images sorted by class can begin like this by chance and do not count, unless
    there are no others.
    """
    total = sum(wanted)
    if len(labels) < total or max(wanted) == min(wanted):
        return False
    leading = labels[:total]
    by_class = bool((np.diff(leading) >= 0).all())
    return np.bincount(leading, minlength=len(wanted)).tolist() == wanted and (len(labels) == total or not by_class)


def _fitting(present: list[int], imbalance: float, profile: str) -> int:
    """The largest n_max whose profile the images present can fill (at least 1)."""
    for n_max in range(max(present), 1, -1):
        wanted = profile_counts(len(present), n_max, imbalance, profile)
        if all(want <= there for want, there in zip(wanted, present, strict=True)):
            return n_max
    return 1


@dataclass
class _Work:
    """What the decoding of all splits shares."""

    found: Found
    bad_images: str
    progress: Progress | None
    skipped: list[tuple[str, str]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)

    def note_bad(self, pictures: Images, bad: list[tuple[int, str]]) -> None:
        self.skipped += [(pictures.name(i), reason) for i, reason in bad]
        if bad and self.bad_images == "error":
            more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
            raise InputError(f"{bad[0][1]}{more}: mend or remove it, or go on without such images: --bad-images skip")


def _preprocess(
    found: Found,
    train: Images,
    image_size: int | None,
    size_limit: int | None,
    background: int,
    notes: list[str],
) -> Preprocess:
    """The given one, or size by the pictures with mean and std still to be filled in."""
    if found.preprocess is not None:
        own = found.preprocess.image_size
        if image_size not in (None, own):
            if found.streamed and image_size is not None:
                resize_to = round(image_size * found.preprocess.resize_to / own)
                notes.append(f"image size {image_size}: published results are at {own}")
                return replace(found.preprocess, image_size=image_size, resize_to=resize_to, background=background)
            raise InputError(f"{found.name} has pictures of {own} x {own}: image_size {image_size} is for own pictures")
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


def _median_short_side(train: Images) -> float:
    sides = []
    some = train.take(np.array(_spread(len(train), _SURVEY), dtype=np.int64))
    if isinstance(some, EncodedSplit):
        some = some.loaded()
    for i in range(len(some)):
        try:
            sides.append(min(some.size(i)))
        except InputError:
            continue  # named later, when it is decoded
    return float(np.median(sides)) if sides else float(SIZES[0])


def _spread(total: int, most: int) -> list[int]:
    """Up to ``most`` evenly spaced positions."""
    return list(range(total)) if total <= most else [i * total // most for i in range(most)]


def _splits(
    work: _Work, parts: dict[str, Images], preprocess: Preprocess, memory_limit: int, notes: list[str]
) -> tuple[dict[str, Split], Preprocess]:
    total = sum(len(pictures) for pictures in parts.values())
    need = total * preprocess.channels * preprocess.image_size**2
    measured = work.found.preprocess is None
    if need <= memory_limit and not work.found.streamed:
        splits: dict[str, Split] = {name: _in_memory(work, name, part, preprocess) for name, part in parts.items()}
        if measured and len(splits["train"]):
            train = splits["train"]
            assert isinstance(train, ArraySplit)
            preprocess = _measured(train.images[torch.tensor(_spread(len(train), _SAMPLE))], preprocess, notes)
        return splits, preprocess
    if not all(isinstance(part, FileSplit) for part in parts.values()):
        raise InputError(
            f"{work.found.name}: {total:,} images take {need / 2**30:.1f} GiB as pixels, over the memory limit of "
            f"{memory_limit / 2**30:.1f} GiB: raise the limit, choose a smaller image size, or unpack them as files"
        )
    notes.append(f"{counted(total, 'image')} on disk, decoded when needed ({need / 2**30:.2g} GiB as pixels)")
    white = preprocess.white_level
    splits = {name: _on_disk(work, part, white) for name, part in parts.items() if isinstance(part, FileSplit)}
    train = splits["train"]
    assert isinstance(train, FileSplit)
    if measured and len(train):
        chosen = _spread(len(train), _SAMPLE)
        sample = train.take(chosen)
        images, _, bad = decode_all(sample, preprocess, remarks=work.remarks)
        if bad:
            work.note_bad(sample, bad)
        preprocess = _measured(images, preprocess, notes)
    return splits, preprocess


def _in_memory(work: _Work, name: str, pictures: Images, preprocess: Preprocess) -> ArraySplit:
    images, kept, bad = decode_all(
        pictures, preprocess, progress=work.progress, what=f"reading {name} images", remarks=work.remarks
    )
    work.note_bad(pictures, bad)
    return ArraySplit(
        images=images,
        labels=pictures.labels[kept],
        names=[pictures.name(int(i)) for i in kept],
    )


def _on_disk(work: _Work, pictures: FileSplit, white_level: float) -> FileSplit:
    if work.bad_images == "skip":
        bad = check_all(pictures, progress=work.progress, white_level=white_level)
        work.note_bad(pictures, bad)
        pictures = pictures.take(np.setdiff1d(np.arange(len(pictures)), [i for i, _ in bad]))
    packed = pictures.paths if isinstance(pictures.paths, PackedPaths) else PackedPaths.pack(pictures.paths)
    return FileSplit(packed, pictures.labels)


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
