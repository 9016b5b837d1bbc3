"""How fast is a training step, and what does SAM cost? Ours against the loop of the published scripts.

    python benchmarks/train_step.py --threads 2 --steps 30

One process; ours and the peer take turns; a step is: get a batch, augment it, train on it, note loss and accuracy.
README.md says what each row means and what the peer is.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from common import (
    ROOT,
    SCHEMA,
    Timing,
    environment,
    growth_exponent,
    interleave,
    load_average,
    peak_bytes,
    speed_ratio,
    synchronizer,
    usable_cores,
    warm_up,
    write_result,
)
from convolution_bound import convolutions, cost, fastest_pass
from peers.loop import Loop, Pictures, ResNet, full_batches, picture_loader
from torch import nn

from saddlescape.data import class_counts, load
from saddlescape.data.types import ArraySplit, Batch, Dataset, Preprocess
from saddlescape.methods.recipe import Facts
from saddlescape.methods.resolve import resolve
from saddlescape.runs.plan import can_compile
from saddlescape.training.assemble import assemble, new_model
from saddlescape.training.loop import Running, set_epoch, take_step
from saddlescape.training.precision import Precision, has_fast_bf16, resolve_device
from saddlescape.training.stage import Stage

METHODS = {"sam": "ce+sam", "sgd": "ce"}
EPOCH = 10  # past the warm-up of the learning rate
SEED = 0
SPEEDS = [(method, precision) for method in METHODS for precision in ("float32", "bf16")]

# Floor and goal for ResNet-32 at batch 128 on 2 CPU cores with bf16 units; without such units the bf16 rows are owed
# by nobody, and a GPU has aims of its own (whole runs, not ratios).
AIMS = {
    "sam step, float32, over loop": (1.4, 1.8),
    "sam step, bf16, over loop": (3.0, 4.0),
    "sgd step, bf16, over loop": (3.0, 4.0),
    "crop, flip and normalise a batch, over PIL": (10.0, 15.0),
    "share of the bf16 convolution bound, sam step": (0.4, 0.6),
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all measurements of a run share."""

    dataset: Dataset
    device: torch.device
    model: str
    batch: int
    workers: int  # of the peer's loader
    steps: int
    block: int
    warm_up: int = 3  # untimed steps of every contender

    @property
    def synchronize(self) -> Callable[[], object]:
        return synchronizer(self.device)


# --- data ---------------------------------------------------------------------------------------------------------


def load_images(name: str) -> Dataset:
    """CIFAR-10-LT, imbalance 100; or noise of its shape and counts, which takes as long to train on."""
    if name == "cifar10":
        return load("cifar10", imbalance=100)
    return noise(class_counts(10, 5000, 100), size=32)


def noise(counts: list[int], size: int) -> Dataset:
    """``counts[c]`` pictures of class c, ``size`` x ``size`` random pixels, that go by the recipes of CIFAR-10."""
    generator = torch.Generator().manual_seed(SEED)
    labels = torch.repeat_interleave(torch.arange(10), torch.tensor(counts))
    pixels = torch.randint(0, 256, (len(labels), 3, size, size), dtype=torch.uint8, generator=generator)
    return Dataset(
        name="cifar10",
        train=ArraySplit(pixels, labels),
        test=ArraySplit(pixels[:10], labels[:10]),
        classes=[str(label) for label in range(10)],
        class_counts=counts,
        groups={"head": [0, 1, 2], "mid": [3, 4, 5, 6], "tail": [7, 8, 9]},
        preprocess=Preprocess(image_size=size, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010)),
        draw_hash="synthetic",
        augment="crop-flip",
    )


def stage_of(setting: Setting, method: str) -> Stage:
    """The paper's recipe for "sam" or "sgd" with plain cross-entropy; only the batch size is the setting's."""
    dataset = setting.dataset
    facts = Facts(
        dataset=dataset.name,
        class_counts=dataset.class_counts,
        image_size=dataset.preprocess.image_size,
        augment=dataset.augment,
        device_type=setting.device.type,
    )
    return dataclasses.replace(resolve(METHODS[method], facts).stages[0], batch_size=setting.batch)


# --- the two contenders -------------------------------------------------------------------------------------------


class Ours:
    """A step as ``training.loop.fit`` makes it, batch and running sums included."""

    def __init__(self, setting: Setting, method: str, precision: str, compiled: bool = False) -> None:
        network = new_model(setting.model, setting.dataset, "linear", SEED)
        device = setting.device
        self.parts = assemble(
            stage_of(setting, method), setting.dataset, network,
            device=device, precision=Precision(precision, device.type), compile_model=compiled, seed=SEED,
        )  # fmt: skip
        self.lr, self.rho = set_epoch(self.parts, EPOCH)
        self.running = Running()
        self.check_every = 1 if device.type == "cpu" else 50
        self.batches = self._full_batches(setting.batch)

    def _full_batches(self, size: int) -> Iterator[Batch]:
        epoch = EPOCH
        while True:
            yield from (batch for batch in self.parts.loader.epoch(epoch) if len(batch.targets) == size)
            epoch += 1

    def step(self) -> None:
        self.train(next(self.batches))

    def train(self, batch: Batch) -> float | None:
        """One step on ``batch``; returns its loss at w where the loop would look at it, else None."""
        losses = take_step(self.parts, [batch])
        self.running.add(losses, [batch])
        self.running.batch += 1
        if self.running.batch % self.check_every:
            return None
        if not math.isfinite(float(self.running.loss)):
            raise FloatingPointError("the loss is no longer finite: this measures no training; use another --data")
        return float(losses[0].mean())


class Peer:
    """A step of the published scripts' kind, its loader included."""

    def __init__(self, setting: Setting, method: str) -> None:
        stage = stage_of(setting, method)
        network = ResNet(int(setting.model.removeprefix("resnet")), setting.dataset.num_classes)
        network.load_state_dict(new_model(setting.model, setting.dataset, "linear", SEED).state_dict())
        self.loop = Loop(
            network, setting.device, lr=stage.lr, momentum=stage.momentum, weight_decay=stage.weight_decay,
            rho=stage.rho[0] if stage.rho else None,
        )  # fmt: skip
        torch.manual_seed(SEED)
        self.batches = peer_batches(setting, setting.workers)

    def step(self) -> None:
        images, targets = next(self.batches)
        self.loop.step(images, targets)


def peer_batches(setting: Setting, workers: int) -> Iterator[list[torch.Tensor]]:
    split, preprocess = cast(ArraySplit, setting.dataset.train), setting.dataset.preprocess
    pixels = split.images.permute(0, 2, 3, 1).contiguous().numpy()
    pictures = Pictures(pixels, split.labels.tolist(), preprocess.mean, preprocess.std)
    return full_batches(picture_loader(pictures, setting.batch, workers, setting.device.type == "cuda"))


# --- measurements -------------------------------------------------------------------------------------------------


def measure_steps(setting: Setting, compiled: bool) -> tuple[dict[str, dict[str, Timing]], dict[str, Any]]:
    """Steps of both contenders, and of the convolutions alone, by method; the second value is the bound's record."""
    timings: dict[str, dict[str, Timing]] = {}
    bound: dict[str, Any] = {"passes_a_step": {"sam": 2, "sgd": 1}}
    for method in METHODS:
        torch.compiler.reset()
        contenders: dict[str, Callable[[], object]] = {"loop": Peer(setting, method).step}
        for precision in ("float32", "bf16"):
            contenders[f"ours {precision} eager"] = Ours(setting, method, precision).step
            if compiled:
                contenders[f"ours {precision} compiled"] = Ours(setting, method, precision, compiled=True).step
            if method == "sam":
                layout, convolve, tried = bound_pass(setting, precision)
                contenders[f"convolutions {precision}"] = convolve
                bound[precision] = {"format": layout, "tried": {name: t.as_json() for name, t in tried.items()}}
        first = warm_up(contenders, setting.warm_up, setting.synchronize)
        say(f"{method}: first step took " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in first.items()))
        timings[method] = interleave(
            contenders, setting.steps, block=setting.block, synchronize=setting.synchronize, seed=SEED
        )
    for precision in ("float32", "bf16"):
        timing = timings["sam"][f"convolutions {precision}"]
        bound[precision] |= timing.as_json() | bound_cost(setting, precision).as_json(timing.median)
    return timings, bound


def bound_network(setting: Setting) -> nn.Module:
    return new_model(setting.model, setting.dataset, "linear", SEED)


def bound_pass(setting: Setting, precision: str) -> tuple[str, Callable[[], object], dict[str, Timing]]:
    dtype, size = Precision(precision, setting.device.type).dtype, setting.dataset.preprocess.image_size
    return fastest_pass(bound_network(setting), setting.batch, size, dtype, setting.device, max(1, setting.steps // 3))


def bound_cost(setting: Setting, precision: str) -> Any:
    preprocess = setting.dataset.preprocess
    shape = (setting.batch, preprocess.channels, preprocess.image_size, preprocess.image_size)
    itemsize = Precision(precision, setting.device.type).dtype.itemsize
    return cost(convolutions(bound_network(setting)), shape, itemsize)


def measure_augmentation(setting: Setting) -> dict[str, Timing]:
    """A batch out of the loader, on the device: gathered, cropped, flipped, normalised."""
    ours, peer = Ours(setting, "sgd", "float32"), peer_batches(setting, workers=0)

    def from_pil() -> None:
        for tensor in next(peer):
            tensor.to(setting.device, non_blocking=True)

    contenders: dict[str, Callable[[], object]] = {"loop": from_pil, "ours": lambda: next(ours.batches)}
    warm_up(contenders, setting.warm_up, setting.synchronize)
    return interleave(contenders, 3 * setting.steps, block=3, synchronize=setting.synchronize, seed=SEED)


def measure_memory(setting: Setting) -> dict[str, Any]:
    """Peak bytes of a step beyond what lay there before it, SAM's over SGD's, in copies of the weights."""
    weights = sum(p.numel() * p.element_size() for p in bound_network(setting).parameters())
    record: dict[str, Any] = {"weights_bytes": weights}
    builders: dict[str, Callable[[str], Ours | Peer]] = {
        "ours float32": lambda method: Ours(setting, method, "float32"),
        "ours bf16": lambda method: Ours(setting, method, "bf16"),
        "loop": lambda method: Peer(dataclasses.replace(setting, workers=0), method),
    }
    for name, build in builders.items():
        peaks: dict[str, int] = {}
        for method in METHODS:
            contender = build(method)
            warm_up({name: contender.step}, 2, setting.synchronize)
            optimizer = contender.parts.optimizer if isinstance(contender, Ours) else contender.loop.sgd
            optimizer.zero_grad(set_to_none=True)
            peaks[method] = peak_bytes(contender.step, setting.device)
        difference = peaks["sam"] - peaks["sgd"]
        record[name] = {"peak_bytes": peaks, "difference_bytes": difference, "weight_copies": difference / weights}
    return record


def measure_growth(setting: Setting, depths: Sequence[int], precision: str) -> dict[str, Any]:
    """SAM steps, eager, over the images of a batch and over the depth of the network."""
    batches = sorted({max(2, setting.batch // 4), max(2, setting.batch // 2), setting.batch, 2 * setting.batch})
    by_batch = {str(batch): _step_pair(dataclasses.replace(setting, batch=batch), precision) for batch in batches}
    by_depth, operations = {}, []
    for depth in depths:
        sized = dataclasses.replace(setting, model=f"resnet{depth}")
        by_depth[sized.model] = _step_pair(sized, precision)
        operations.append(float(bound_cost(sized, "float32").operations))
    return {
        "precision": precision,
        "images": {"sizes": batches, **_growth(batches, by_batch)},
        "depth": {"sizes": operations, "size_is": "convolution operations", **_growth(operations, by_depth)},
    }


def _step_pair(setting: Setting, precision: str) -> dict[str, Timing]:
    contenders: dict[str, Callable[[], object]] = {
        "loop": Peer(setting, "sam").step,
        "ours": Ours(setting, "sam", precision).step,
    }
    warm_up(contenders, setting.warm_up, setting.synchronize)
    rounds = max(1, setting.steps // 3)
    return interleave(contenders, rounds, block=setting.block, synchronize=setting.synchronize, seed=SEED)


def _growth(sizes: Sequence[float], timings: dict[str, dict[str, Timing]]) -> dict[str, Any]:
    medians = {who: [pair[who].median for pair in timings.values()] for who in ("ours", "loop")}
    return {
        "timings": {size: {who: t.as_json() for who, t in pair.items()} for size, pair in timings.items()},
        "exponent": {who: growth_exponent(sizes, seconds) for who, seconds in medians.items()},
    }


# --- rows ---------------------------------------------------------------------------------------------------------


def speed_rows(setting: Setting, timings: dict[str, dict[str, Timing]], native: bool) -> list[dict[str, Any]]:
    """One row a method and precision: the better of eager and compiled over the loop, both told."""
    rows = []
    for method, precision in SPEEDS:
        loop = timings[method]["loop"]
        variants = {
            name.rpartition(" ")[2]: {**speed_ratio(timing, loop), "ours": timing.as_json()}
            for name, timing in timings[method].items()
            if name.startswith(f"ours {precision}")
        }
        best = max(variants, key=lambda name: variants[name]["value"])
        row = _row(setting, f"{method} step, {precision}, over loop", variants[best]["value"], "times", native)
        rows.append(
            row | {"quartiles": variants[best]["quartiles"], "variant": best, "variants": variants,
                   "peer": loop.as_json()}
        )  # fmt: skip
    return rows


def share_rows(setting: Setting, timings: dict[str, Timing], native: bool) -> list[dict[str, Any]]:
    """Twice the convolutions' pass over the better SAM step, in each number format."""
    rows = []
    for precision in ("bf16", "float32"):
        steps = {name: t for name, t in timings.items() if name.startswith(f"ours {precision}")}
        best = min(steps, key=lambda name: steps[name].median)
        value = 2 * timings[f"convolutions {precision}"].median / steps[best].median
        name = f"share of the {precision} convolution bound, sam step"
        rows.append(_row(setting, name, value, "share", native) | {"variant": best.rpartition(" ")[2]})
    return rows


def augmentation_row(setting: Setting, timings: dict[str, Timing]) -> dict[str, Any]:
    ratio = speed_ratio(timings["ours"], timings["loop"])
    row = _row(setting, "crop, flip and normalise a batch, over PIL", ratio["value"], "times", True)
    return row | {
        "quartiles": ratio["quartiles"], "ours": timings["ours"].as_json(), "peer": timings["loop"].as_json()
    }  # fmt: skip


def memory_rows(setting: Setting, memory: dict[str, Any]) -> list[dict[str, Any]]:
    names = [name for name in memory if name != "weights_bytes"]
    return [
        _row(setting, f"sam's memory beyond sgd's, {name}", memory[name]["weight_copies"], "weight copies", True)
        for name in names
    ]


def growth_rows(setting: Setting, growth: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        _row(setting, f"sam step's growth with {what}, {who}", growth[what]["exponent"][who], "exponent", True)
        for what in ("images", "depth")
        for who in ("ours", "loop")
    ]


def _row(setting: Setting, name: str, value: float | None, unit: str, native: bool) -> dict[str, Any]:
    usual = setting.device.type == "cpu" and setting.model == "resnet32" and setting.batch == 128
    owed = usual and (native or "bf16" not in name)
    floor, goal = AIMS.get(name, (None, None)) if owed else (None, None)
    return {"name": name, "value": value, "unit": unit, "floor": floor, "goal": goal}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as text, speeds with the milliseconds behind them and both variants."""
    lines = [f"{'figure':<52}{'value':>8} {'quartiles':>13} {'floor':>6}{'goal':>6}  ms of ours / of the peer"]
    for row in rows:
        lines.append(_line(row["name"], row, row.get("ours"), row.get("peer")))
        for variant, timing in row.get("variants", {}).items():
            lines.append(_line(f"    {variant}", timing, timing["ours"], row["peer"]))
    return "\n".join(lines)


def _line(name: str, row: dict[str, Any], ours: dict[str, Any] | None, peer: dict[str, Any] | None) -> str:
    value = "-" if row["value"] is None else f"{row['value']:.2f}"
    spread = "{:.2f}..{:.2f}".format(*row["quartiles"]) if "quartiles" in row else ""
    floor, goal = (f"{row[key]:g}" if row.get(key) is not None else "" for key in ("floor", "goal"))
    times = f"{_milliseconds(ours)} / {_milliseconds(peer)}" if ours and peer else ""
    return f"{name:<52}{value:>8} {spread:>13} {floor:>6}{goal:>6}  {times}".rstrip()


def _milliseconds(timing: dict[str, Any]) -> str:
    low, high = timing["quartiles_s"]
    return f"{1e3 * timing['median_s']:.4g} ({1e3 * low:.4g}..{1e3 * high:.4g})"


# --- the script ---------------------------------------------------------------------------------------------------


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Time a training step of ours against the loop of the published scripts, interleaved.",
        epilog="example: python benchmarks/train_step.py --threads 2 --steps 30",
    )
    parser.add_argument("--threads", type=int, default=usable_cores(), help="torch's threads (default: all cores)")
    parser.add_argument("--steps", type=int, default=20, help="samples of every contender (default %(default)s)")
    parser.add_argument("--block", type=int, help="steps in a sample (default: 1 on a CPU, 20 on a GPU)")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--data", default="cifar10", choices=("cifar10", "synthetic"), help="see README.md")
    parser.add_argument("--model", default="resnet32", help="resnet20, 32, 44 or 56 (default %(default)s)")
    parser.add_argument("--batch", type=int, default=128, help="images in a batch (default %(default)s)")
    parser.add_argument("--depths", type=int, nargs="+", default=[20, 32, 56], help="networks of the growth rows")
    parser.add_argument("--workers", type=int, help="of the peer's DataLoader (default: 0 on a CPU, 4 on a GPU)")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out")
    parser.add_argument("--out", type=Path, help="JSON (default: benchmarks/results/train_step-DEVICE.json)")
    options = parser.parse_args(argv)
    for name in ("threads", "steps", "batch"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if argv is None else list(argv)
    options = arguments(given)
    device = resolve_device(options.device)
    on_gpu = device.type == "cuda"
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = on_gpu  # as the published scripts have it; it is one switch for both contenders
    taken = environment(device, given)
    say(f"{taken['device']}, {taken['threads']} threads, torch {taken['torch']}, load average {taken['load_average']}")
    if taken["load_average"] and taken["load_average"][0] > 0.5:
        say("other work runs on this machine: ratios hold roughly, milliseconds do not")
    setting = Setting(
        dataset=load_images(options.data),
        device=device,
        model=options.model,
        batch=options.batch,
        workers=options.workers if options.workers is not None else 4 if on_gpu else 0,
        steps=options.steps,
        block=options.block or (20 if on_gpu else 1),
    )
    native = has_fast_bf16(device)
    compiled = options.compile and (on_gpu or can_compile())
    timings, bound = measure_steps(setting, compiled)
    augmentation = measure_augmentation(setting)
    memory = measure_memory(setting)
    growth = measure_growth(setting, options.depths, "bf16" if native else "float32")
    rows = [
        *speed_rows(setting, timings, native),
        augmentation_row(setting, augmentation),
        *share_rows(setting, timings["sam"], native),
        *memory_rows(setting, memory),
        *growth_rows(setting, growth),
    ]
    say(table(rows))
    out = options.out or ROOT / "benchmarks" / "results" / f"train_step-{device.type}.json"
    write_result(
        out,
        {
            "benchmark": "train_step",
            "schema": SCHEMA,
            "environment": taken | {"load_average_at_end": load_average(), "native_bf16": native},
            "settings": {
                "data": options.data,
                "draw_hash": setting.dataset.draw_hash,
                "model": setting.model,
                "batch": setting.batch,
                "steps": setting.steps,
                "block": setting.block,
                "peer_workers": setting.workers,
                "compiled": compiled,
            },
            "rows": rows,
            "timings": {
                "sam": {name: t.as_json() for name, t in timings["sam"].items()},
                "sgd": {name: t.as_json() for name, t in timings["sgd"].items()},
                "augmentation": {name: t.as_json() for name, t in augmentation.items()},
            },
            "convolution_bound": bound,
            "memory": memory,
            "growth": growth,
        },
    )
    say(f"written to {out.name}")
    return 0


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
