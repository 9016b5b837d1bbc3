"""How fast do batches come from image files? Ours against a plain DataLoader.

    python benchmarks/loader.py --images 2000
    python benchmarks/loader.py --root FOLDER    # a copy of ImageNet-LT, or a set made by tools/make_longtail_set.py

A unit of work is a whole epoch over the same files, the published augmentation of ImageNet-LT included, ending in
float32 batches on the device. Contenders take turns; workers persist between epochs. README.md explains each row.
"""

from __future__ import annotations

import gc
import importlib
import itertools
import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from common import (
    ROOT,
    Run,
    Timing,
    as_json,
    growth,
    interleave,
    options_of,
    positive,
    ratio_row,
    row,
    synchronizer,
    usable_cores,
    warm_up,
)
from peers.image_folder import PlainLoader, TrainTransform
from PIL import Image

from saddlescape.data import FileSplit, StreamLoader, build_augment, load
from saddlescape.data.paths import PackedPaths
from saddlescape.data.samplers import InstanceBalanced
from saddlescape.data.types import Preprocess


@dataclass(frozen=True)
class Setting:
    """What all measurements of a run share."""

    paths: list[str]
    labels: list[int]
    preprocess: Preprocess
    device: torch.device
    batch: int
    workers: int
    rounds: int

    def first(self, count: int) -> Setting:
        return replace(self, paths=self.paths[:count], labels=self.labels[:count])


def images(root: Path) -> tuple[list[str], list[int], Preprocess]:
    """The training files of an ImageNet-LT in ``root``, in an order of no class, and how they are normalised."""
    dataset = load("imagenet-lt", root=root)
    assert isinstance(dataset.train, FileSplit)
    order = torch.randperm(len(dataset.train), generator=torch.Generator().manual_seed(0)).tolist()
    paths = [str(dataset.train.paths[i]) for i in order]
    return paths, dataset.train.labels[order].tolist(), dataset.preprocess


def make_images(folder: Path, count: int) -> Path:
    """A set of at least ``count`` training files."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        tool = importlib.import_module("make_longtail_set")
    finally:
        sys.path.remove(str(ROOT / "tools"))
    each = -(-count // 20)
    tool.write_set("imagenet-lt", folder, [each] * 20, 1, workers=1, progress=sys.stderr.isatty())
    return folder


# --- contenders ---------------------------------------------------------------------------------------------------


class Ours:
    """A StreamLoader, epoch after epoch."""

    def __init__(self, setting: Setting) -> None:
        labels = torch.tensor(setting.labels)
        self.loader = StreamLoader(
            FileSplit(PackedPaths.pack(setting.paths), labels), setting.preprocess,
            batch_size=setting.batch, device=setting.device, workers=setting.workers,
            augment=build_augment("resized-crop-flip-jitter", setting.preprocess.image_size),
            sampler=InstanceBalanced(labels),
        )  # fmt: skip
        self.numbers = itertools.count()
        self.device = setting.device

    def epoch(self) -> Iterator[int]:
        for batch in self.loader.epoch(next(self.numbers)):
            yield len(batch.targets)

    def close(self) -> None:
        self.loader.close()


class Peer:
    """The loader of the published scripts, its batches moved to the device."""

    def __init__(self, setting: Setting) -> None:
        preprocess = setting.preprocess
        transform = TrainTransform(preprocess.image_size, preprocess.mean, preprocess.std)
        self.device = setting.device
        self.loader: PlainLoader | None = PlainLoader(
            setting.paths, setting.labels, transform, batch_size=setting.batch, workers=setting.workers
        )

    def epoch(self) -> Iterator[int]:
        assert self.loader is not None
        for images, labels in self.loader.epoch():
            images.to(self.device), labels.to(self.device)
            yield len(labels)

    def close(self) -> None:
        self.loader = None
        gc.collect()


class DecodeOnly:
    """The bound: the files opened and decoded, nothing else, nothing sent, by as many processes."""

    def __init__(self, setting: Setting) -> None:
        self.chunks = [setting.paths[i : i + 16] for i in range(0, len(setting.paths), 16)]
        self.pool = multiprocessing.get_context("fork").Pool(setting.workers) if setting.workers else None

    def epoch(self) -> Iterator[int]:
        if self.pool is None:
            yield from map(decode, self.chunks)
        else:
            yield from self.pool.imap_unordered(decode, self.chunks)

    def close(self) -> None:
        if self.pool is not None:
            self.pool.terminate()
            self.pool.join()


def decode(paths: Sequence[str]) -> int:
    for path in paths:
        with Image.open(path) as image:
            image.load()
    return len(paths)


Contender = Ours | Peer | DecodeOnly


CONTENDERS: dict[str, Callable[[Setting], Contender]] = {
    "ours": Ours, "DataLoader": Peer, "decoding alone": DecodeOnly
}  # fmt: skip


def run_epoch(contender: Contender, expected: int, synchronize: Callable[[], object]) -> None:
    shown = sum(contender.epoch())
    synchronize()
    if shown != expected:
        raise RuntimeError(f"{type(contender).__name__} showed {shown} of {expected} images")


def timings(setting: Setting, names: Sequence[str]) -> dict[str, Timing]:
    """Seconds of an epoch of each contender, taking turns, after one untimed epoch."""
    contenders = {name: CONTENDERS[name](setting) for name in names}
    work = {
        name: lambda contender=contender: run_epoch(contender, len(setting.paths), synchronizer(setting.device))
        for name, contender in contenders.items()
    }
    try:
        warm_up(work, 1)
        return interleave(work, setting.rounds)
    finally:
        for contender in contenders.values():
            contender.close()


# --- rows ---------------------------------------------------------------------------------------------------------


def measure_growth(setting: Setting, counts: Sequence[int]) -> dict[str, Any]:
    """An epoch's seconds over the images in it, and over the workers."""
    names = ("ours", "DataLoader")
    shorter = replace(setting, rounds=max(1, setting.rounds // 2))
    total = len(setting.paths)
    sizes = sorted({max(setting.batch, total // 4), max(setting.batch, total // 2), total})
    return {
        "images": growth(sizes, {str(size): timings(shorter.first(size), names) for size in sizes}),
        "workers": growth(counts, {str(count): timings(replace(shorter, workers=count), names) for count in counts}),
    }


def rows_of(setting: Setting, taken: dict[str, Timing], grown: dict[str, Any]) -> list[dict[str, Any]]:
    ours, cores = taken["ours"], max(1, min(setting.workers, usable_cores()))
    rows = [ratio_row("images per second, over DataLoader", ours, taken["DataLoader"])]
    for name, timing in taken.items():
        rows.append(row(f"images per second and core, {name}", len(setting.paths) / timing.median / cores, "images/s"))
    rows.append(ratio_row("share of the speed of decoding alone", ours, taken["decoding alone"], "share"))
    for who in ("ours", "DataLoader"):
        for what in ("images", "workers"):
            rows.append(row(f"growth of an epoch's time with {what}, {who}", grown[what]["exponent"][who], "exponent"))
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = options_of(__doc__)
    parser.set_defaults(threads=1)  # cores belong to the workers, on every side
    parser.add_argument("--root", type=Path, help="an ImageNet-LT in its published layout (default: one is made)")
    parser.add_argument("--images", type=positive, default=1000, help="images in an epoch (default %(default)s)")
    parser.add_argument("--batch", type=positive, default=64, help="images in a batch (default %(default)s)")
    parser.add_argument("--workers", type=positive, default=usable_cores(), help="processes (default: one a core)")
    parser.add_argument("--rounds", type=positive, default=5, help="epochs of every contender (default %(default)s)")
    run = Run("loader", parser, argv)
    given = run.options
    with tempfile.TemporaryDirectory() as scratch:
        root = given.root or make_images(Path(scratch) / "made", given.images)
        paths, labels, preprocess = images(root)
        if len(paths) < given.images:
            raise SystemExit(f"{root} has {len(paths)} training images: --images {given.images} is too many")
        everything = Setting(paths, labels, preprocess, run.device, given.batch, given.workers, given.rounds)
        setting = everything.first(given.images)
        measured = timings(setting, list(CONTENDERS))
        counts = sorted({1, *(2**k for k in range(1, 8) if 2**k <= given.workers), given.workers})
        grown = measure_growth(setting, counts)
        size = sum(Path(path).stat().st_size for path in setting.paths) / len(setting.paths)
    settings = {key: getattr(given, key) for key in ("images", "batch", "workers", "rounds")}
    made = {"data": "made" if given.root is None else "given", "bytes_per_file": round(size)}
    return run.write(
        rows_of(setting, measured, grown),
        settings=settings | made | {"image_size": preprocess.image_size},
        timings=as_json(measured),
        growth=grown,
    )


if __name__ == "__main__":
    sys.exit(main())
