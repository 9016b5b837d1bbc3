"""How fast do batches come from image files? Ours against a plain DataLoader, webdataset and Hugging Face datasets.

    python benchmarks/loader.py --images 2000
    python benchmarks/loader.py --root FOLDER    # a copy of ImageNet-LT, or a set made by tools/make_longtail_set.py

A unit of work is a whole epoch over the same files, the published augmentation of ImageNet-LT included, ending in
float32 batches on the device. Contenders take turns; workers persist between epochs. README.md explains each row.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import itertools
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from common import (
    ROOT,
    SCHEMA,
    Timing,
    environment,
    growth_exponent,
    interleave,
    load_average,
    speed_ratio,
    usable_cores,
    warm_up,
    write_result,
)
from peers.image_folder import PlainLoader, TrainTransform
from PIL import Image

from saddlescape.data import FileSplit, StreamLoader, build_augment, load
from saddlescape.data.paths import PackedPaths
from saddlescape.data.samplers import InstanceBalanced
from saddlescape.data.types import Preprocess

PEERS = {"webdataset": ("peers.webdataset_shards", "ShardLoader"), "datasets": ("peers.hf_datasets", "TableLoader")}
MEMORY_SIZES = (50_000, 200_000)


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
    folder: Path  # for what peers write

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
    """Somebody else's loader, its batches moved to the device."""

    def __init__(self, setting: Setting, build: Callable[..., Any], **options: Any) -> None:
        preprocess = setting.preprocess
        transform = TrainTransform(preprocess.image_size, preprocess.mean, preprocess.std)
        self.device = setting.device
        self.loader = build(
            setting.paths, setting.labels, transform, batch_size=setting.batch, workers=setting.workers, **options
        )

    def epoch(self) -> Iterator[int]:
        for pictures, labels in self.loader.epoch():
            pictures.to(self.device), labels.to(self.device)
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
        with Image.open(path) as picture:
            picture.load()
    return len(paths)


Contender = Ours | Peer | DecodeOnly


def builders(setting: Setting) -> tuple[dict[str, Callable[[Setting], Contender]], list[str]]:
    """Contender -> how it is built, and the peers that are not installed."""
    known: dict[str, Callable[[Setting], Contender]] = {
        "ours": Ours,
        "DataLoader": lambda s: Peer(s, PlainLoader),
        "decoding alone": DecodeOnly,
    }
    missing = []
    for name, (module, loader) in PEERS.items():
        try:
            build = getattr(importlib.import_module(module), loader)
        except ImportError:
            missing.append(name)
            continue
        more = {"folder": setting.folder / name} if name == "webdataset" else {}
        known[name] = lambda s, build=build, more=more: Peer(s, build, **more)  # type: ignore[misc]
    return known, missing


def run_epoch(contender: Contender, expected: int, synchronize: Callable[[], None]) -> None:
    shown = sum(contender.epoch())
    synchronize()
    if shown != expected:
        raise RuntimeError(f"{type(contender).__name__} showed {shown} of {expected} images")


def timings(setting: Setting, names: Sequence[str]) -> dict[str, Timing]:
    """Seconds of an epoch of each contender, taking turns, after one untimed epoch."""
    known, _ = builders(setting)
    wait = torch.cuda.synchronize if setting.device.type == "cuda" else lambda: None
    contenders = {name: known[name](setting) for name in names}
    work = {
        name: lambda contender=contender: run_epoch(contender, len(setting.paths), wait)
        for name, contender in contenders.items()
    }
    try:
        warm_up(work, 1)
        return interleave(work, setting.rounds)
    finally:
        for contender in contenders.values():
            contender.close()


# --- memory -------------------------------------------------------------------------------------------------------


def proportional_bytes(process: int) -> int | None:
    """This process's share of the memory it has mapped (Linux's PSS)."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return None


def bytes_of_a_long_list(build: Callable[[Setting], Contender], setting: Setting, count: int) -> int | None:
    """Memory of this process and its workers in the middle of an epoch over ``count`` images (the same few files)."""
    times = -(-count // len(setting.paths))
    # Every entry a string of its own, as from a list file.
    paths = [f"{path[:1]}{path[1:]}" for _ in range(times) for path in setting.paths][:count]
    contender = build(replace(setting, paths=paths, labels=(setting.labels * times)[:count]))
    del paths
    try:
        batches = contender.epoch()
        for _ in range(3):
            next(batches)
        gc.collect()
        processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children() if child.pid)]
        shares = [proportional_bytes(process) for process in processes]
        return None if None in shares else sum(share for share in shares if share is not None)
    finally:
        contender.close()


def measure_memory(setting: Setting, sizes: Sequence[int]) -> dict[str, Any]:
    """Bytes for every further image of a list, workers included, each in a process of its own."""
    record: dict[str, Any] = {"sizes": list(sizes), "workers": setting.workers}
    known, _ = builders(setting)
    for name in ("ours", "DataLoader"):
        held = [_apart(bytes_of_a_long_list, known[name], setting, size) for size in sizes]
        whole = None in held
        record[name] = {
            "bytes": held,
            "bytes_per_image": None if whole else (held[-1] - held[0]) / (sizes[-1] - sizes[0]),
        }
    return record


def _apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call ``function`` in a fork, so that what an earlier call left behind does not count."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        return receiver.recv()
    except EOFError:  # it ended without an answer
        raise RuntimeError("measuring memory failed; its error is above") from None
    finally:
        process.join()


def _send(sender: Any, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    sender.send(function(*arguments))


# --- rows ---------------------------------------------------------------------------------------------------------


def rows_of(
    setting: Setting, taken: dict[str, Timing], growth: dict[str, Any], memory: dict[str, Any]
) -> list[dict[str, Any]]:
    count = len(setting.paths)
    ours = taken["ours"]
    rows = []
    for peer in ("DataLoader", *PEERS):
        if peer in taken:
            ratio = speed_ratio(ours, taken[peer])
            rows.append(_row(f"images per second, over {peer}", ratio["value"], "times") | {
                "quartiles": ratio["quartiles"], "ours": ours.as_json(), "peer": taken[peer].as_json(),
            })  # fmt: skip
    cores = max(1, min(setting.workers, usable_cores()))
    for name, timing in taken.items():
        rows.append(_row(f"images per second and core, {name}", count / timing.median / cores, "images/s"))
    share = speed_ratio(ours, taken["decoding alone"])
    rows.append(
        _row("share of the speed of decoding alone", share["value"], "share") | {"quartiles": share["quartiles"]}
    )
    for who in ("ours", "DataLoader"):
        rows.append(_row(f"growth with images, {who}", growth["images"]["exponent"][who], "exponent"))
        rows.append(_row(f"growth of speed with workers, {who}", growth["workers"]["exponent"][who], "exponent"))
        rows.append(_row(f"memory for a further image, {who}", memory[who]["bytes_per_image"], "bytes"))
    return rows


def _row(name: str, value: float | None, unit: str) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": unit}


def measure_growth(setting: Setting, counts: Sequence[int]) -> dict[str, Any]:
    """An epoch's seconds over the images in it, and images per second over workers."""
    names = ("ours", "DataLoader")
    shorter = replace(setting, rounds=max(1, setting.rounds // 2))
    total = len(setting.paths)
    sizes = sorted({max(setting.batch, total // 4), max(setting.batch, total // 2), total})
    by_size = [timings(shorter.first(size), names) for size in sizes]
    by_workers = [timings(replace(shorter, workers=count), names) for count in counts]
    return {
        "images": {
            "sizes": sizes,
            "timings": [{name: t.as_json() for name, t in entry.items()} for entry in by_size],
            "exponent": {n: growth_exponent(sizes, [entry[n].median for entry in by_size]) for n in names},
        },
        "workers": {
            "sizes": list(counts),
            "images_per_s": {n: [total / entry[n].median for entry in by_workers] for n in names},
            "exponent": {n: growth_exponent(counts, [total / entry[n].median for entry in by_workers]) for n in names},
        },
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    lines = [f"{'figure':<52}{'value':>10} {'quartiles':>14}  unit"]
    for row in rows:
        value = "-" if row["value"] is None else f"{row['value']:.4g}"
        spread = "{:.2f}..{:.2f}".format(*row["quartiles"]) if "quartiles" in row else ""
        lines.append(f"{row['name']:<52}{value:>10} {spread:>14}  {row['unit']}")
    return "\n".join(lines)


# --- the script ---------------------------------------------------------------------------------------------------


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Time batches out of image files, ours and peers taking turns.",
        epilog="example: python benchmarks/loader.py --images 2000 --rounds 5",
    )
    parser.add_argument("--root", type=Path, help="an ImageNet-LT in its published layout (default: one is made)")
    parser.add_argument("--images", type=int, default=1000, help="images in an epoch (default %(default)s)")
    parser.add_argument("--batch", type=int, default=64, help="images in a batch (default %(default)s)")
    parser.add_argument("--workers", type=int, default=usable_cores(), help="processes (default: one a core)")
    parser.add_argument("--rounds", type=int, default=5, help="epochs of every contender (default %(default)s)")
    parser.add_argument("--memory-sizes", type=int, nargs=2, default=MEMORY_SIZES, help="lengths of the long lists")
    parser.add_argument("--peers", type=Path, help="folder with the peers' packages (see README.md)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--out", type=Path, help="JSON (default: benchmarks/results/loader-DEVICE.json)")
    options = parser.parse_args(argv)
    for name in ("images", "batch", "workers", "rounds"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if argv is None else list(argv)
    options = arguments(given)
    device = torch.device(options.device)
    if options.peers:
        sys.path.append(str(options.peers.resolve()))  # behind the installed packages
    torch.set_num_threads(1)  # cores belong to the workers, on every side
    taken = environment(device, given)
    say(f"{taken['device']}, {options.workers} workers, torch {taken['torch']}, load average {taken['load_average']}")
    if taken["load_average"] and taken["load_average"][0] > 0.5:
        say("other work runs on this machine: ratios hold roughly, images per second do not")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        root = options.root or make_images(folder / "made", options.images)
        paths, labels, preprocess = images(root)
        if len(paths) < options.images:
            raise SystemExit(f"{root} has {len(paths)} training images: --images {options.images} is too many")
        setting = Setting(
            paths, labels, preprocess, device, options.batch, options.workers, options.rounds, folder
        ).first(options.images)  # fmt: skip
        known, missing = builders(setting)
        measured = timings(setting, list(known))
        counts = sorted({1, *(2**k for k in range(1, 8) if 2**k <= options.workers), options.workers})
        growth = measure_growth(setting, counts)
        memory = measure_memory(setting, options.memory_sizes)
        size = sum(Path(path).stat().st_size for path in setting.paths) / len(setting.paths)
    rows = rows_of(setting, measured, growth, memory)
    say(table(rows))
    if missing:
        say(f"not installed, left out: {', '.join(missing)} (see benchmarks/README.md)")
    out = options.out or ROOT / "benchmarks" / "results" / f"loader-{device.type}.json"
    write_result(
        out,
        {
            "benchmark": "loader",
            "schema": SCHEMA,
            "environment": taken | {"load_average_at_end": load_average()},
            "settings": {
                "data": "made" if options.root is None else "given",
                "images": options.images,
                "bytes_per_file": round(size),
                "image_size": preprocess.image_size,
                "batch": options.batch,
                "workers": options.workers,
                "rounds": options.rounds,
            },
            "missing": missing,
            "rows": rows,
            "timings": {name: timing.as_json() for name, timing in measured.items()},
            "growth": growth,
            "memory": memory,
        },
    )
    say(f"written to {out.name}")
    return 0


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
