"""How fast is a training step, and what does SAM cost? Ours against the loop of the published scripts.

    python benchmarks/train_step.py --threads 2 --steps 30

One process; ours and the peer take turns; a step is: get a batch, augment it, train on it, note loss and accuracy.
README.md says what each row means and what the peer is.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from common import (
    Run,
    Timing,
    as_json,
    growth,
    interleave,
    options_of,
    peak_bytes,
    positive,
    ratio_row,
    row,
    say,
    synchronizer,
    warm_up,
)
from convolution_bound import convolutions, cost, fastest_pass
from peers.loop import Images, Loop, ResNet, full_batches, image_loader
from torch import nn

from saddlescape.data import class_counts, load
from saddlescape.data.types import ArraySplit, Batch, Dataset, Preprocess
from saddlescape.methods.recipe import Facts
from saddlescape.methods.resolve import resolve
from saddlescape.optim import OPTIMIZERS
from saddlescape.records.config import Stage
from saddlescape.runs.plan import can_compile
from saddlescape.training.loop import set_epoch, take_step
from saddlescape.training.parts import assemble, new_model
from saddlescape.training.precision import Precision, has_fast_bf16
from saddlescape.training.running import Running

METHODS = {"sam": "ce+sam", "sgd": "ce"}
FAMILY = [name for name in OPTIMIZERS if name != "pgd"]  # whose kicks are no part of a step
RADII = {"sgd": (), "asam": (0.5,), "cc-sam": (1e-6,)}  # else 0.05
EPOCH = 10  # past the warm-up of the learning rate
SEED = 0
PRECISIONS = ("float32", "bf16")


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
    """``counts[c]`` images of class c, ``size`` x ``size`` random pixels, that go by the recipes of CIFAR-10."""
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
    """A step as ``training.loop.fit`` makes it, batch and running sums included; ``method`` as ``METHODS`` names it.

    ``optimizer``: another than the method's own.
    """

    def __init__(
        self, setting: Setting, method: str, precision: str, compiled: bool = False, optimizer: str = ""
    ) -> None:
        stage = stage_of(setting, method)
        if optimizer:
            stage = dataclasses.replace(stage, optimizer=optimizer, rho=RADII.get(optimizer, (0.05,)))
        network = new_model(setting.model, setting.dataset, "linear", SEED)
        device = setting.device
        self.parts = assemble(
            stage, setting.dataset, network,
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
    images = Images(pixels, split.labels.tolist(), preprocess.mean, preprocess.std)
    return full_batches(image_loader(images, setting.batch, workers, setting.device.type == "cuda"))


# --- measurements -------------------------------------------------------------------------------------------------


def measure_steps(setting: Setting, compiled: bool) -> tuple[dict[str, dict[str, Timing]], dict[str, Any]]:
    """Steps of both contenders, and of the convolutions alone, by method; the second value is the bound's record."""
    timings: dict[str, dict[str, Timing]] = {}
    bound: dict[str, Any] = {"passes_a_step": {"sam": 2, "sgd": 1}}
    for method in METHODS:
        torch.compiler.reset()
        contenders: dict[str, Callable[[], object]] = {"loop": Peer(setting, method).step}
        for precision in PRECISIONS:
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
    for precision in PRECISIONS:
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


def measure_family(setting: Setting) -> dict[str, Timing]:
    """Steps in float32, eager, of every optimiser on the recipe of "sgd"."""
    contenders: dict[str, Callable[[], object]] = {
        name: Ours(setting, "sgd", "float32", optimizer=name).step for name in FAMILY
    }
    warm_up(contenders, setting.warm_up, setting.synchronize)
    return interleave(contenders, setting.steps, synchronize=setting.synchronize, seed=SEED)


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
    deep = [dataclasses.replace(setting, model=f"resnet{depth}") for depth in depths]
    operations = [float(bound_cost(sized, "float32").operations) for sized in deep]
    by_depth = {sized.model: _step_pair(sized, precision) for sized in deep}
    return {
        "precision": precision,
        "images": growth(batches, by_batch),
        "depth": {"size_is": "convolution operations", **growth(operations, by_depth)},
    }


def _step_pair(setting: Setting, precision: str) -> dict[str, Timing]:
    contenders: dict[str, Callable[[], object]] = {
        "loop": Peer(setting, "sam").step,
        "ours": Ours(setting, "sam", precision).step,
    }
    warm_up(contenders, setting.warm_up, setting.synchronize)
    rounds = max(1, setting.steps // 3)
    return interleave(contenders, rounds, block=setting.block, synchronize=setting.synchronize, seed=SEED)


# --- rows ---------------------------------------------------------------------------------------------------------


def step_rows(timings: dict[str, dict[str, Timing]]) -> list[dict[str, Any]]:
    """Of each method and precision the better of eager and compiled, over the loop, and both; and beside the bound."""
    rows, shares = [], []
    for method in METHODS:
        for precision in PRECISIONS:
            ours = {name: t for name, t in timings[method].items() if name.startswith(f"ours {precision}")}
            best = min(ours, key=lambda name: ours[name].median)
            variants = {name.rpartition(" ")[2]: timing.as_json() for name, timing in ours.items()}
            what, variant = f"{method} step, {precision}, over loop", best.rpartition(" ")[2]
            rows.append(ratio_row(what, ours[best], timings[method]["loop"], variant=variant, variants=variants))
            if method == "sam":  # two passes of the convolutions
                share = 2 * timings[method][f"convolutions {precision}"].median / ours[best].median
                shares.append(row(f"share of the {precision} convolution bound, sam step", share, "share"))
    return rows + shares


def other_rows(memory: dict[str, Any], grown: dict[str, Any]) -> list[dict[str, Any]]:
    copies = {name: each["weight_copies"] for name, each in memory.items() if name != "weights_bytes"}
    rows = [row(f"sam's memory beyond sgd's, {name}", value, "weight copies") for name, value in copies.items()]
    for what in ("images", "depth"):
        for who, exponent in grown[what]["exponent"].items():
            rows.append(row(f"sam step's growth with {what}, {who}", exponent, "exponent"))
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = options_of(__doc__)
    parser.add_argument("--steps", type=positive, default=20, help="samples of every contender (default %(default)s)")
    parser.add_argument("--block", type=positive, help="steps in a sample (default: 1 on a CPU, 20 on a GPU)")
    parser.add_argument("--data", default="cifar10", choices=("cifar10", "synthetic"), help="see README.md")
    parser.add_argument("--model", default="resnet32", help="resnet20, 32, 44 or 56 (default %(default)s)")
    parser.add_argument("--batch", type=positive, default=128, help="images in a batch (default %(default)s)")
    parser.add_argument("--depths", type=int, nargs="+", default=[20, 32, 56], help="networks of the growth rows")
    parser.add_argument("--workers", type=int, help="of the peer's DataLoader (default: 0 on a CPU, 4 on a GPU)")
    parser.add_argument("--no-compile", dest="compile", action="store_false", help="leave torch.compile out")
    run = Run("train_step", parser, argv)
    given, on_gpu = run.options, run.device.type == "cuda"
    torch.backends.cudnn.benchmark = on_gpu  # as the published scripts have it; it is one switch for both contenders
    setting = Setting(
        dataset=load_images(given.data), device=run.device, model=given.model, batch=given.batch,
        workers=given.workers if given.workers is not None else 4 if on_gpu else 0,
        steps=given.steps, block=given.block or (20 if on_gpu else 1),
    )  # fmt: skip
    native = has_fast_bf16(run.device)
    compiled = given.compile and (on_gpu or can_compile())
    timings, bound = measure_steps(setting, compiled)
    augmentation = measure_augmentation(setting)
    family = measure_family(setting)
    costs = [ratio_row(f"{name} step, in sgd steps", family["sgd"], family[name]) for name in FAMILY[1:]]
    memory = measure_memory(setting)
    grown = measure_growth(setting, given.depths, "bf16" if native else "float32")
    augmented = ratio_row("crop, flip and normalise a batch, over PIL", augmentation["ours"], augmentation["loop"])
    taken = {**timings, "augmentation": augmentation, "family": family}
    return run.write(
        [*step_rows(timings), augmented, *costs, *other_rows(memory, grown)],
        settings={
            "data": given.data,
            "draw_hash": setting.dataset.draw_hash,
            "native_bf16": native,
            "compiled": compiled,
            **{key: getattr(setting, key) for key in ("model", "batch", "steps", "block", "workers")},
        },
        timings={name: as_json(each) for name, each in taken.items()},
        convolution_bound=bound,
        memory=memory,
        growth=grown,
    )


if __name__ == "__main__":
    sys.exit(main())
