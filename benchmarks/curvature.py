"""How fast and how exact is the curvature of one class? Ours against PyHessian, curvlinops and hessian-eigenthings.

    python benchmarks/curvature.py --checkpoint RUN --checkpoint OTHER_RUN --classes 0 4 9 --threads 2

A case is a checkpoint, a class and a number of images; its parts are measured one after another and each is written as
soon as it is there, so an interrupted run goes on where it was, and ``--parts`` cuts it into pieces. All contenders
take turns on the same weights, images and batches. README.md says what each row means, how each peer is used, and how
to have the peers without touching torch. A peer that is not there is left out.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from common import (
    SCHEMA,
    Run,
    Timing,
    as_json,
    growth,
    interleave,
    load_average,
    options_of,
    positive,
    ratio_row,
    row,
    say,
    synchronizer,
    table,
    warm_up,
)
from convolution_bound import convolutions, cost, fastest_pass
from peers.flat import Flat
from torch import Tensor, nn
from train_step import load_images

from saddlescape.curvature import FunctionOperator, build_operator, extremes, lanczos
from saddlescape.curvature.density import quadrature
from saddlescape.curvature.guards import random_vector
from saddlescape.data.types import Dataset
from saddlescape.density import density
from saddlescape.measure.subject import class_samples, open_subject
from saddlescape.training.parts import new_model

PEERS = ("pyhessian", "curvlinops", "eigenthings")
SEED = 0
TOL = 1e-4  # of the extreme eigenvalues
PARTS = (
    "products", "bound", "product_errors", "reference", "extremes", "float32", "density",
    "without_products", "growth",
)  # fmt: skip

Ends = tuple[float, float]


@dataclass(frozen=True)
class Setting:
    """What all measurements share. ``inputs`` [N, C, S, S] and ``targets`` [N] are of one class and on ``device``."""

    model: nn.Module
    loss: nn.Module
    inputs: Tensor
    targets: Tensor
    batch: int
    peers: tuple[str, ...]
    steps: int
    rounds: int
    repeats: int
    device: torch.device

    @property
    def synchronize(self) -> Callable[[], object]:
        return synchronizer(self.device)

    @property
    def dim(self) -> int:
        return sum(p.numel() for p in self.model.parameters())

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """Batches of one size: a peer that averages the means of batches then has the same operator."""
        return list(zip(self.inputs.split(self.batch), self.targets.split(self.batch), strict=True))

    def images(self, number: int) -> Setting:
        """The same with the first ``number`` images, in batches of one size of at most ``batch``."""
        number, size = even_batches(number, self.batch)
        return replace(self, inputs=self.inputs[:number], targets=self.targets[:number], batch=size)

    def in_float64(self) -> Setting:
        return replace(self, model=copy.deepcopy(self.model).double(), inputs=self.inputs.double(), peers=())


def even_batches(images: int, at_most: int) -> tuple[int, int]:
    """(number of images, batch size): as few batches of one size as ``at_most`` allows; a few images may be left out.

    >>> even_batches(500, 250), even_batches(501, 250), even_batches(30, 250)
    ((500, 250), (501, 167), (30, 30))
    >>> even_batches(503, 250)
    (501, 167)
    """
    pieces = -(-images // at_most)
    size = images // pieces
    return pieces * size, size


# --- the contenders -----------------------------------------------------------------------------------------------


class Ours(Flat):
    """The library as its documentation shows it; ``options`` go to ``build_operator``."""

    def __init__(self, setting: Setting, **options: Any) -> None:
        data = (setting.inputs, setting.targets)
        self.operator = build_operator(setting.model, setting.loss, data, batch_size=setting.batch, **options)

    @property
    def products(self) -> int:
        return self.operator.num_products

    def product(self, vector: Tensor) -> Tensor:
        return self.operator(vector)

    def density(self, steps: int) -> Ends:
        """A density of one probe on 10,000 points; returns the outermost nodes."""
        start = random_vector(self.operator.dim, self.operator.like, seed=SEED, kind="rademacher")
        values, weights = quadrature(lanczos(self.operator, start, steps))
        density(values[None], weights[None])
        return float(values[0]), float(values[-1])

    def extremes(self, tol: float, steps: int) -> Ends:
        """Both ends by thick restart until the *values* are good to ``tol``, and a certifying product for each."""
        found = extremes(self.operator, tol=tol, stop="value", max_products=max(500, steps), seed=SEED)
        return found.smallest[0].value, found.largest[0].value

    def without_products(self, diagonal: Tensor, steps: int) -> None:
        """The run of ``density`` with a diagonal matrix [P] in the place of the Hessian."""
        free = FunctionOperator(lambda v: diagonal * v, len(diagonal), diagonal)
        quadrature(lanczos(free, random_vector(len(diagonal), diagonal, seed=SEED, kind="rademacher"), steps))


def find_peers(wanted: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """{peer: version} of those that can be imported, and the names of the others."""
    present, missing = {}, []
    for name in wanted:
        try:
            module = importlib.import_module(f"peers.{name}")
        except ImportError as problem:
            say(f"left out: {name} ({problem}); see benchmarks/peers/requirements.txt")
            missing.append(name)
        else:
            present[name] = metadata.version(module.DISTRIBUTION)
    return present, missing


def factories(setting: Setting) -> dict[str, Callable[[], Any]]:
    """How to build each contender. A peer gets a copy of the network of its own: some write into its gradients."""
    found: dict[str, Callable[[], Any]] = {
        "ours": lambda: Ours(setting),
        "ours, double backward": lambda: Ours(setting, method="double_backward"),
    }
    for name in setting.peers:
        peer = importlib.import_module(f"peers.{name}").Peer

        def build(peer: Any = peer) -> Any:
            return peer(copy.deepcopy(setting.model), setting.loss, setting.batches())

        found[name] = build
    return found


# --- what is measured of --------------------------------------------------------------------------------------------


def from_run(run: Path, options: argparse.Namespace) -> tuple[nn.Module, Dataset, dict[str, Any]]:
    """The network and data of a run folder, at its newest checkpoint."""
    subject = open_subject(run, device=options.device)
    told = {"run": run.name, "checkpoint": subject.checkpoint, "weights_sha256": subject.weights}
    return subject.model, subject.dataset, {**told, "model": subject.opened.config.model}


def trained_briefly(options: argparse.Namespace) -> tuple[nn.Module, Dataset, dict[str, Any]]:
    """A fresh network after ``--train`` steps of SGD on un-augmented batches of 128: past the chaos of the start."""
    dataset = load_images(options.data)
    model = brief_training(new_model(options.model, dataset, "linear", SEED), dataset, options.train, options.device)
    return model, dataset, {"run": None, "train_steps": options.train, "model": options.model}


def brief_training(model: nn.Module, dataset: Dataset, steps: int, device: str) -> nn.Module:
    model.to(device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(SEED)
    train: Any = dataset.train
    for _ in range(steps):
        chosen = torch.randint(len(train.labels), (128,), generator=generator)
        inputs = dataset.preprocess.normalize(train.images[chosen]).to(device)
        loss = nn.functional.cross_entropy(model(inputs), train.labels[chosen].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    return model.eval()


# --- measuring ----------------------------------------------------------------------------------------------------


def measure_products(setting: Setting) -> tuple[dict[str, Timing], dict[str, Any]]:
    """Seconds of a product each, after an untimed one."""
    vector = random_vector(setting.dim, setting.inputs, seed=SEED)
    works = {}
    for name, build in factories(setting).items():
        contender = build()
        native = contender.native(vector)
        works[name] = lambda contender=contender, native=native: contender.product(native)
    first = warm_up(works, 1, setting.synchronize)
    timings = interleave(works, setting.rounds, synchronize=setting.synchronize, seed=SEED)
    return timings, {name: {**timing.as_json(), "warm_s": first[name]} for name, timing in timings.items()}


def measure_bound(setting: Setting) -> dict[str, Any]:
    """A product beside the convolutions that it cannot do without, and beside a matrix product of the same machine.

    The product rule makes two convolutions of each one of a forward and backward pass, so the bound is twice the
    network's bare convolutions (the first layer's two that need no product are counted too), cut into the same
    batches as ours, each in the faster memory format.
    """
    ours = Ours(setting)
    vector = random_vector(setting.dim, setting.inputs, seed=SEED)
    batch = min(ours.operator.batch_size, len(setting.targets))
    size, passes = setting.inputs.shape[-1], 2 * -(-len(setting.targets) // batch)
    layout, once, _ = fastest_pass(setting.model, batch, size, torch.float32, setting.device, 3)
    square = torch.randn(1024, 1024, device=setting.device)
    works = {
        "ours": lambda: ours.product(vector),
        "convolutions": lambda: [once() for _ in range(passes)],
        "matrix product": lambda: [square @ square for _ in range(10)],
    }
    warm_up(works, 1, setting.synchronize)
    timings = interleave(works, setting.rounds, synchronize=setting.synchronize, seed=SEED)
    shape = (batch, setting.inputs.shape[1], size, size)
    operations = passes * cost(convolutions(setting.model), shape, 4).operations
    speed = {name: operations / timings[name].median for name in ("ours", "convolutions")}
    speed["matrix product"] = 20 * 1024**3 / timings["matrix product"].median
    known = {"layout": layout, "batch": batch, "operations": operations, "operations_per_s": speed}
    return known | {"timings": as_json(timings)}


def measure_product_errors(setting: Setting) -> dict[str, Any]:
    """How far a product of each is from ours by double backward in float64, which a CPU takes minutes for."""
    vector = random_vector(setting.dim, setting.inputs, seed=SEED)
    exact = Ours(setting.in_float64(), method="double_backward").product(vector.double())
    record = {}
    for name, build in factories(setting).items():
        contender = build()
        apart = contender.flat(contender.product(contender.native(vector))).double() - exact
        record[name] = {"error": float(apart.norm() / exact.norm())}
    return record


def measure_whole(
    setting: Setting, job: Callable[[Any], Ends | None], exact: Ends | None
) -> tuple[dict[str, Timing], dict[str, Any]]:
    """Seconds from network and images to the answer, building included; products made, and errors of both ends."""
    found: dict[str, tuple[Ends | None, int]] = {}

    def work(name: str, build: Callable[[], Any]) -> None:
        contender = build()
        found[name] = job(contender), contender.products

    works = {name: lambda name=name, build=build: work(name, build) for name, build in factories(setting).items()}
    timings = interleave(works, setting.repeats, synchronize=setting.synchronize, seed=SEED)
    told = {}
    for name, timing in timings.items():
        ends, products = found[name]
        told[name] = {**timing.as_json(), "products": products, "ends": ends, "errors": errors_of(ends, exact)}
    return timings, told


def errors_of(ends: Ends | None, exact: Ends | None) -> list[float] | None:
    """Relative error of (lambda_min, lambda_max); None where a contender does not tell, or nothing exact is known."""
    return None if ends is None or exact is None else [abs(a - b) / abs(b) for a, b in zip(ends, exact, strict=True)]


def exact_extremes(setting: Setting) -> tuple[Ends, dict[str, Any]]:
    """Both ends in float64 by double backward, each settled until its residual is 1e-6 of it: values to about 1e-12."""
    operator = Ours(setting.in_float64(), method="double_backward").operator
    found = extremes(operator, tol=1e-6, max_products=1000, seed=SEED + 1)
    low, high = found.smallest[0], found.largest[0]
    told = {"lambda_min": low.value, "lambda_max": high.value, "residuals": [low.residual, high.residual],
            "converged": found.converged, "products": found.products}  # fmt: skip
    return (low.value, high.value), told


def measure_float32(setting: Setting, exact: Ends | None) -> dict[str, Any]:
    """Ends by ours in float32, settled as far as float32 goes, beside float64."""
    found = extremes(Ours(setting).operator, tol=1e-5, max_products=1000, seed=SEED)
    ends = found.smallest[0].value, found.largest[0].value
    return {"ends": ends, "errors": errors_of(ends, exact), "products": found.products}


def measure_orthogonalisation(setting: Setting) -> dict[str, Timing]:
    """Lanczos with everything but the products: a diagonal matrix takes the Hessian's place."""
    diagonal = random_vector(setting.dim, setting.inputs, seed=SEED, stream=1)
    works = {}
    for name, build in factories(setting).items():
        contender: Any = build()
        if name != "ours, double backward" and contender.without_products is not None:
            works[name] = lambda contender=contender: contender.without_products(diagonal, setting.steps)
    return interleave(works, setting.repeats, synchronize=setting.synchronize, seed=SEED)


def measure_growth(setting: Setting, dataset: Dataset, depths: Sequence[int]) -> dict[str, Any]:
    """Products over the number of images and of parameters, a density over the Lanczos steps; ours and PyHessian."""
    counts = sorted({max(1, len(setting.targets) // part) for part in (4, 2, 1)})
    networks = {
        f"resnet{depth}": brief_training(
            new_model(f"resnet{depth}", dataset, "linear", SEED), dataset, 0, setting.device.type
        )
        for depth in depths
    }
    sized = {name: replace(setting, model=model) for name, model in networks.items()}
    lengths = sorted({max(2, setting.steps // part) for part in (4, 2, 1)})
    return {
        "images": growth(counts, {str(count): _product_times(setting.images(count)) for count in counts}),
        "parameters": growth(
            [each.dim for each in sized.values()], {name: _product_times(each) for name, each in sized.items()}
        ),
        "Lanczos steps": growth(lengths, {str(steps): _density_times(setting, steps) for steps in lengths}),
    }


def _product_times(setting: Setting) -> dict[str, Timing]:
    pair = replace(setting, rounds=max(1, setting.rounds // 3), peers=tuple({*setting.peers} & {"pyhessian"}))
    return measure_products(pair)[0]


def _density_times(setting: Setting, steps: int) -> dict[str, Timing]:
    works = {}
    for name, build in factories(setting).items():
        if name in ("ours", "pyhessian"):
            contender = build()
            works[name] = lambda contender=contender: contender.density(steps)
    return interleave(works, 1, synchronize=setting.synchronize, seed=SEED)


# --- rows ---------------------------------------------------------------------------------------------------------


def ratio_rows(what: str, timings: Mapping[str, Timing], setting: Setting) -> list[dict[str, Any]]:
    """Ours over each other contender, and over the fastest peer."""
    peers = [name for name in timings if name in setting.peers]
    against = [(name, name) for name in timings if name != "ours"]
    if what.startswith("products") and peers:
        against.append(("the fastest peer", min(peers, key=lambda name: timings[name].median)))
    return [
        ratio_row(f"{what}, ours over {shown}", timings["ours"], timings[name], peer_name=name)
        for shown, name in against
    ]


def error_rows(what: str, record: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        row(f"error of {what}, {name}", max(each["errors"]), "relative")
        for name, each in record.items()
        if each["errors"]
    ]


def measure_part(
    part: str, setting: Setting, dataset: Dataset, done: Mapping[str, Any], depths: Sequence[int]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(rows, record) of one part. Errors of ends need the part "reference" among those ``done``; else they are None."""
    reference = done.get("reference", {}).get("record")
    exact = (reference["lambda_min"], reference["lambda_max"]) if reference else None
    if part == "reference":
        return [], exact_extremes(setting)[1]
    if part == "products":
        times, record = measure_products(setting)
        return ratio_rows("products per second", times, setting), record
    if part == "bound":
        record = measure_bound(setting)
        speed = record["operations_per_s"]
        bounds = {"the convolution bound": "convolutions", "a matrix product's speed": "matrix product"}
        shares = {what: speed["ours"] / speed[of] for what, of in bounds.items()}
        return [row(f"share of {what}, product", share, "share") for what, share in shares.items()], record
    if part == "product_errors":
        record = measure_product_errors(setting)
        return [row(f"error of a product, {name}", each["error"], "relative") for name, each in record.items()], record
    if part == "density":
        times, record = measure_whole(setting, lambda c: c.density(setting.steps), exact)
        return ratio_rows("whole density", times, setting) + error_rows("a density's ends", record), record
    if part == "extremes":
        times, record = measure_whole(setting, lambda c: c.extremes(TOL, setting.steps), exact)
        return ratio_rows("both extremes", times, setting) + error_rows("both extremes", record), record
    if part == "float32":
        record = measure_float32(setting, exact)
        worst = max(record["errors"]) if record["errors"] else None
        return [row("error of float32 extremes against float64", worst, "relative")], record
    if part == "without_products":
        times = measure_orthogonalisation(setting)
        return ratio_rows("Lanczos without its products", times, setting), as_json(times)
    grown = measure_growth(setting, dataset, depths)
    return [
        row(f"growth with {what}, {name}", exponent, "exponent")
        for what, each in grown.items()
        for name, exponent in each["exponent"].items()
    ], grown


def across(cases: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every row over all cases of the same work: the median, and the least and greatest."""
    found: dict[str, list[dict[str, Any]]] = {}
    for case in cases.values():
        for part in case["parts"].values():
            for each in part["rows"]:
                if each["value"] is not None:
                    found.setdefault(f"{each['name']}, {work_of(case['settings'])}", []).append(each)
    rows = []
    for name, same in found.items():
        values = [each["value"] for each in same]
        spread = [min(values), max(values)]
        rows.append(row(name, statistics.median(values), same[0]["unit"], range=spread, cases=len(same)))
    return rows


def work_of(settings: Mapping[str, Any]) -> str:
    """What must be the same for the figures of two cases to stand in one row."""
    return f"{settings['images']} images, {settings['steps']} steps, threads: {settings['threads']}"


# --- the script ---------------------------------------------------------------------------------------------------


def arguments() -> argparse.ArgumentParser:
    parser = options_of(__doc__)
    parser.add_argument(
        "--checkpoint", type=Path, action="append", default=[], metavar="RUN",
        help="a run folder, at its newest checkpoint; may be given again (default: a network after --train steps)",
    )  # fmt: skip
    parser.add_argument("--classes", type=int, nargs="+", default=[0], help="the classes (default: 0)")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, help="default: all")
    parser.add_argument("--images", type=positive, default=500, help="of the class, at most (default %(default)s)")
    parser.add_argument("--batch", type=positive, default=250, help="images in a batch, at most (default %(default)s)")
    parser.add_argument("--steps", type=positive, default=100, help="Lanczos steps of a density (default %(default)s)")
    parser.add_argument("--rounds", type=positive, default=20, help="samples of a product (default %(default)s)")
    parser.add_argument("--repeats", type=positive, default=3, help="samples of whole jobs (default %(default)s)")
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS, help="default: all")
    parser.add_argument("--model", default="resnet32", help="without --checkpoint (default %(default)s)")
    parser.add_argument("--train", type=int, default=100, help="steps without --checkpoint (default %(default)s)")
    parser.add_argument("--data", default="cifar10", choices=("cifar10", "synthetic"), help="without --checkpoint")
    parser.add_argument("--depths", type=int, nargs="+", default=[20, 32, 56], help="networks of the growth rows")
    parser.add_argument("--quick", action="store_true", help="a few images and steps: shows that all works, no figures")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    run = Run("curvature", arguments(), argv)
    given = run.options
    if given.quick:
        given.model, given.images, given.batch, given.steps = "resnet20", 12, 6, 6
        given.rounds, given.repeats, given.train, given.depths = 2, 1, 2, [20]
    torch.backends.cudnn.allow_tf32 = False  # ours computes in float32 proper, and so shall all
    torch.backends.cuda.matmul.allow_tf32 = False
    present, missing = find_peers(given.peers)
    cases = cases_in(run.out)
    for folder in given.checkpoint or [None]:
        torch.manual_seed(SEED)
        model, dataset, about = trained_briefly(given) if folder is None else from_run(folder, given)
        for label in given.classes:
            (inputs, targets), available = class_samples(dataset, [label], given.images, SEED)
            setting = Setting(
                model=model.float(), loss=nn.CrossEntropyLoss(), inputs=inputs.to(run.device),
                targets=targets.to(run.device), batch=given.batch, peers=tuple(present), steps=given.steps,
                rounds=given.rounds, repeats=given.repeats, device=run.device,
            ).images(len(targets))  # fmt: skip
            settings = {
                **about,
                "draw_hash": dataset.draw_hash,
                "label": label,
                "images": len(setting.targets),
                "available": available,
                "batch": setting.batch,
                "parameters": setting.dim,
                "steps": setting.steps,
                "threads": given.threads,
                "tolerance": TOL,
                "quick": given.quick,
            }
            key = f"{about['run'] or about['model']}, class {label}, {work_of(settings)}"
            case = cases.get(key)
            if case is None or case["settings"] != settings:
                case = cases[key] = {"settings": settings, "parts": {}}
            for part in (part for part in PARTS if part in given.parts and part not in case["parts"]):
                before = run.taken_at()
                rows, record = measure_part(part, setting, dataset, case["parts"], given.depths)
                case["parts"][part] = {
                    "rows": rows,
                    "record": record,
                    "rounds": setting.rounds,
                    "repeats": setting.repeats,
                    "environment": before | {"load_average_at_end": load_average()},
                }
                say(f"{key}: {part}\n{table(rows)}")
                run.write(across(cases), show=False, peers=present, missing=missing, cases=cases)
    return 0


def cases_in(out: Path) -> dict[str, Any]:
    """The cases of an earlier call; none where there is no such file."""
    earlier = json.loads(out.read_text()) if out.exists() else {}
    return dict(earlier["cases"]) if earlier.get("schema") == SCHEMA and "cases" in earlier else {}


if __name__ == "__main__":
    sys.exit(main())
