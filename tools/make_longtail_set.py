"""Make a set that looks like ImageNet-LT or iNaturalist 2018 on disk, from small images that are at hand.

    python tools/make_longtail_set.py imagenet-lt OUT --classes 100 --scale 0.1
    python tools/make_longtail_set.py inat2018 OUT --classes 200 --scale 0.05
    saddlescape datasets check imagenet-lt --root OUT

Real JPEG files of 500 x 375 pixels (a quarter of them upright, 375 x 500), list files and folders with the path shapes
of the published sets, original labels in no order of frequency, and the published class profile scaled down. The
pictures are CIFAR images (from ``SADDLESCAPE_DATA``; scikit-learn's digits where there are none) enlarged, with a
texture that tells apart the classes made from one class of the source. For trying and timing whatever works on large
sets; the accuracies that it gives mean nothing.

The same arguments make the same files (with the same versions of NumPy and Pillow).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import math
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track

from saddlescape.data import ArraySplit, load
from saddlescape.errors import InputError

WIDTH, HEIGHT = 500, 375
KINGDOMS = ("Plantae", "Insecta", "Aves", "Reptilia", "Mammalia", "Fungi", "Amphibia")


@dataclass(frozen=True)
class Kind:
    """What was published: ``knots`` are (rank as a share of the classes, images), ``total`` images in all."""

    classes: int
    total: int
    knots: tuple[tuple[float, float], ...]
    train_list: str
    test_list: str
    test_per_class: int


KINDS = {
    "imagenet-lt": Kind(
        1000, 115_846, ((0, 1280), (0.385, 100), (0.864, 20), (1, 5)),
        "ImageNet_LT_train.txt", "ImageNet_LT_test.txt", 50,
    ),
    "inat2018": Kind(
        8142, 437_513, ((0, 1000), (842 / 8142, 100), ((842 + 4076) / 8142, 20), (1, 2)),
        "iNaturalist18_train.txt", "iNaturalist18_val.txt", 3,
    ),
}  # fmt: skip


def profile(kind: Kind, classes: int, scale: float) -> list[int]:
    """Images of each class, most frequent first: the published profile at ``classes`` ranks, times ``scale``.

    Between the published points log(images) falls linearly, except among the many-shot classes, where it falls like
    a power of the rank that makes the total the published one. No class has fewer than one image.
    """

    def images(rank: float, bend: float) -> float:
        for (left, high), (right, low) in zip(kind.knots, kind.knots[1:], strict=False):
            if rank <= right:
                along = 1 - (rank - left) / (right - left)
                return low * (high / low) ** (along**bend if left == 0 else along)
        return kind.knots[-1][1]

    def total(bend: float) -> float:
        ranks = [rank / (kind.classes - 1) for rank in range(kind.classes)]
        return sum(images(rank, bend) for rank in ranks)

    low, high = 0.25, 32.0  # a larger bend is a thinner head
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if total(middle) > kind.total else (low, middle)
    steps = max(classes - 1, 1)
    return [max(1, round(scale * images(rank / steps, low))) for rank in range(classes)]


@dataclass(frozen=True)
class Picture:
    """One file to make: ``number`` counts the pictures of its class, test ones from ``10**6`` on."""

    path: str
    label: int
    number: int


def plan(name: str, counts: Sequence[int], test_per_class: int, seed: int) -> tuple[list[Picture], list[Picture]]:
    """Training and test files with their original labels, in the order of the lists."""
    shuffled = np.random.default_rng([seed, 0]).permutation(len(counts)).tolist()  # rank -> original label
    count_of = dict(zip(shuffled, counts, strict=True))
    train: list[Picture] = []
    test: list[Picture] = []
    serial = 0
    for label in range(len(counts)):
        train += [Picture(_train_path(name, label, i), label, i) for i in range(count_of[label])]
        for i in range(test_per_class):
            serial += 1
            test.append(Picture(_test_path(name, label, i, serial), label, 10**6 + i))
    return train, test


def _synset(label: int) -> str:
    return f"n{9_000_000 + 37 * label:08d}"


def _inat_path(label: int, number: int) -> str:
    name = hashlib.md5(f"{label} {number}".encode(), usedforsecurity=False).hexdigest()
    return f"train_val2018/{KINGDOMS[label % len(KINGDOMS)]}/{label}/{name}.jpg"


def _train_path(name: str, label: int, number: int) -> str:
    synset = _synset(label)
    return f"train/{synset}/{synset}_{number}.JPEG" if name == "imagenet-lt" else _inat_path(label, number)


def _test_path(name: str, label: int, number: int, serial: int) -> str:
    if name == "imagenet-lt":
        return f"val/{_synset(label)}/ILSVRC2012_val_{serial:08d}.JPEG"
    return _inat_path(label, 10**6 + number)


def source_images() -> list[NDArray[np.uint8]]:
    """Small pictures by class, uint8 [N, H, W, 3] each: CIFAR-100, else CIFAR-10, else the digits."""
    for name in ("cifar100", "cifar10", "digits"):
        try:
            split = load(name).train
        except InputError:
            continue
        assert isinstance(split, ArraySplit)
        images = split.images.permute(0, 2, 3, 1).numpy()
        images = np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images
        labels = split.labels.numpy()
        return [images[labels == label] for label in range(int(labels.max()) + 1)]
    raise AssertionError("the digits come with scikit-learn")


def jpeg(picture: Picture, source: Sequence[NDArray[np.uint8]], seed: int, size: tuple[int, int]) -> bytes:
    """The file: a function of its label, its number and ``seed`` alone."""
    rng = np.random.default_rng([seed, 1, picture.label, picture.number])
    small = source[picture.label % len(source)]
    image = Image.fromarray(small[int(rng.integers(len(small)))])
    width, height = size if rng.random() < 0.75 else size[::-1]
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    margin = rng.uniform(0, 0.15, 4) * image.width
    box = (margin[0], margin[1], image.width - margin[2], image.height - margin[3])
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=tuple(box)), dtype=np.float32)
    pixels = pixels + _texture(picture.label // len(source), width, height, rng)[..., None]
    pixels += rng.normal(0, 12, (height, width, 1)).astype(np.float32)  # grain: real files are as large
    stream = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def _texture(variant: int, width: int, height: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Stripes, whose direction and width belong to the class and whose phase to the picture."""
    if variant == 0:
        return np.zeros((height, width), dtype=np.float32)
    angle, period = math.pi * 0.618 * variant, 12 + 7 * (variant % 11)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    along = x * math.cos(angle) + y * math.sin(angle)
    return (28 * np.sin(2 * math.pi * along / period + rng.uniform(0, 2 * math.pi))).astype(np.float32)


_SOURCE: list[NDArray[np.uint8]] = []  # what a worker draws from


def _prepare(source: list[NDArray[np.uint8]]) -> None:
    _SOURCE[:] = source


def _write(pictures: Sequence[Picture], out: Path, seed: int, size: tuple[int, int]) -> int:
    for picture in pictures:
        path = out / picture.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(picture, _SOURCE, seed, size))
    return len(pictures)


def write_set(
    name: str, out: Path, counts: Sequence[int], test_per_class: int,
    *, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT), workers: int = 1, progress: bool = True,
) -> None:  # fmt: skip
    """Write images and lists below ``out``; the lists last, so that a half-made set is not taken for a whole one."""
    kind = KINDS[name]
    train, test = plan(name, counts, test_per_class, seed)
    chunks = [pictures[i : i + 16] for pictures in (train, test) for i in range(0, len(pictures), 16)]
    write = partial(_write, out=out, seed=seed, size=size)
    source = source_images()

    def made() -> Iterator[int]:
        if workers == 1:
            _prepare(source)
            yield from map(write, chunks)
            return
        with ProcessPoolExecutor(workers, initializer=_prepare, initargs=(source,)) as pool:
            yield from pool.map(write, chunks)

    for _ in track(made(), f"making {len(train) + len(test):,} pictures", len(chunks), disable=not progress):
        pass
    for file, pictures in ((kind.train_list, train), (kind.test_list, test)):
        (out / file).write_text("".join(f"{picture.path} {picture.label}\n" for picture in pictures), encoding="utf-8")


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Make a set of the shape of ImageNet-LT or iNaturalist 2018 from CIFAR images.",
        epilog="example: python tools/make_longtail_set.py imagenet-lt made --classes 100 --scale 0.1",
    )
    parser.add_argument("name", choices=tuple(KINDS))
    parser.add_argument("out", type=Path, help="folder to make; must not hold a set yet")
    parser.add_argument("--classes", type=int, default=100, help="number of classes (default %(default)s)")
    parser.add_argument("--scale", type=float, default=0.1, help="share of the published images (default %(default)s)")
    parser.add_argument("--test-per-class", type=int, help="default: 10 for imagenet-lt, 3 for inat2018")
    parser.add_argument("--size", type=int, nargs=2, default=(WIDTH, HEIGHT), metavar=("W", "H"), help="pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: all cores)")
    options = parser.parse_args(argv)
    most = KINDS[options.name].classes
    if not 2 <= options.classes <= most:
        parser.error(f"--classes {options.classes}: choose 2 to {most}")
    if options.scale <= 0 or options.workers < 1 or min(options.size) < 8 or options.seed < 0:
        parser.error("--scale must be above 0, --workers at least 1, --size at least 8 8, --seed not negative")
    if options.test_per_class is None:
        options.test_per_class = 10 if options.name == "imagenet-lt" else 3
    if options.test_per_class < 1:
        parser.error(f"--test-per-class {options.test_per_class}: a class has at least one test image")
    if (options.out / KINDS[options.name].train_list).exists():
        parser.error(f"{options.out} holds a set already")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options = arguments(sys.argv[1:] if argv is None else argv)
    counts = profile(KINDS[options.name], options.classes, options.scale)
    write_set(
        options.name, options.out, counts, options.test_per_class,
        seed=options.seed, size=tuple(options.size), workers=options.workers,
    )  # fmt: skip
    files = sum(counts) + options.classes * options.test_per_class
    print(
        f"{options.out}: {files:,} pictures of {options.classes} classes, {counts[0]} to {counts[-1]} a class in "
        f"training; train with: saddlescape train {options.name} --root {options.out}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
