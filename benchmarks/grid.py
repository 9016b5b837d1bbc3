"""How many runs an hour does a grid make? One after the other, several at a time in processes, and over a local Ray.

    python benchmarks/grid.py --jobs 1 2
    python benchmarks/grid.py --data cifar10 --device cuda --jobs 1 2 4 8

A unit of work is a whole grid in a new folder, from its planning to its last result. README.md says what each row is.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from common import Run, Timing, as_json, growth_exponent, interleave, options_of, positive, ratio_row, usable_cores

from saddlescape.runs.engines import Engine, Epoch, Job, Processes, RayCluster, Step, serial
from saddlescape.runs.engines.ray_cluster import QUIET, STORE, import_ray
from saddlescape.runs.grid import run_grid
from saddlescape.runs.request import Request

METHODS = ("ce+drw", "ce+drw+sam")


def engines(jobs: Sequence[int], threads: int, with_ray: bool, on_gpu: bool) -> dict[str, tuple[Engine, int]]:
    """Name -> engine and the threads of each of its runs: one run alone has them all, N at a time share them."""
    contenders: dict[str, tuple[Engine, int]] = {"serial": (serial, threads)}
    for number in jobs:
        share = threads if on_gpu else max(1, threads // number)
        contenders[f"processes {number}"] = (Processes(number), share)
        if with_ray:
            contenders[f"ray {number}"] = (RayCluster(number, 1 / number), share)
    return contenders


def contend(
    contenders: Mapping[str, tuple[Engine, int]], request: Request, seeds: Sequence[int], rounds: int, place: Path
) -> tuple[dict[str, Timing], dict[str, list[float]], dict[str, list[float]]]:
    """Seconds per grid of every contender, in turn; the accuracies that each reached; and, per grid, the seconds that
    went by before the first of its runs trained."""
    accuracies: dict[str, list[float]] = {}
    starts: dict[str, list[float]] = {name: [] for name in contenders}
    number = itertools.count()

    def work(name: str) -> None:
        engine, threads = contenders[name]
        torch.set_num_threads(threads)
        begun, first = time.perf_counter(), []

        def watch(jobs: Sequence[Job], event: Step | Epoch) -> None:
            if not first:
                first.append(time.perf_counter() - begun)

        results = run_grid(
            request, METHODS, seeds, place / f"grid-{next(number)}", engine=engine, threads=threads, watch=watch
        )
        accuracies[name] = [result["accuracy"] for result in results]
        starts[name] += first

    timings = interleave({name: functools.partial(work, name) for name in contenders}, rounds)
    return timings, accuracies, starts


def rows(
    timings: Mapping[str, Timing],
    contenders: Mapping[str, tuple[Engine, int]],
    runs: int,
    alone: Mapping[int, Timing],
    starts: Mapping[str, Sequence[float]],
) -> list[dict[str, Any]]:
    """Runs an hour of each contender over serial; and as a share of as many serial grids side by side.

    ``alone`` has the serial grid at each number of threads.
    """
    table: list[dict[str, Any]] = []
    for name, timing in timings.items():
        together = int(name.split()[-1]) if name != "serial" else 1
        bound = min(together, runs) * 3600 * runs / alone[contenders[name][1]].median
        speed = 3600 * runs / timing.median
        table.append(
            ratio_row(
                f"{name}: runs an hour, over serial", timing, timings["serial"], runs_per_hour=speed,
                roofline_runs_per_hour=bound, share_of_roofline=speed / bound, start_s=statistics.median(starts[name]),
                threads_per_run=contenders[name][1],
            )
        )  # fmt: skip
    return table


def growth(timings: Mapping[str, Timing], kind: str) -> float | None:
    """Slope of log speed over log runs at a time: 1 is a machine that never gets full."""
    sizes = {name: int(name.split()[-1]) for name in timings if name.split()[0] == kind}
    slope = growth_exponent(list(sizes.values()), [timings[name].median for name in sizes])
    return None if slope is None else -slope


def main(argv: Sequence[str] | None = None) -> int:
    parser = options_of(__doc__)
    parser.add_argument("--data", choices=("digits", "cifar10"), default="digits")
    parser.add_argument("--seeds", type=positive, default=4, help="of each of two methods (default: 4)")
    parser.add_argument("--epochs", type=positive, help="of each run (default: digits 300, cifar10 1)")
    parser.add_argument("--jobs", type=positive, nargs="+", default=[1, 2], help="runs at a time (default: 1 2)")
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--no-ray", dest="ray", action="store_false", help="default: with Ray where it is installed")
    run = Run("grid", parser, argv)
    given = run.options
    with_ray = given.ray and importlib.util.find_spec("ray") is not None
    request = Request(
        data=given.data, imbalance=50.0 if given.data == "digits" else 100.0,
        epochs=given.epochs or (300 if given.data == "digits" else 1), device=str(run.device),
        precision=given.precision, compile=False, eval_every=10**9,
    )  # fmt: skip
    contenders = engines(sorted(set(given.jobs)), given.threads, with_ray, run.device.type == "cuda")
    # The roofline of N runs at a time is N times the speed of one alone with the threads that each of the N has.
    shares = {threads for _, threads in contenders.values()} - {given.threads}
    references: dict[str, tuple[Engine, int]] = {f"serial, {n} threads": (serial, n) for n in sorted(shares)}
    ray: Any = None
    if with_ray:
        ray = import_ray()
        cores = max(usable_cores(), given.threads)
        ray.init(address="local", num_cpus=cores, object_store_memory=STORE, include_dashboard=False, **QUIET)
    try:
        with tempfile.TemporaryDirectory() as place:
            timings, accuracies, starts = contend(
                {**contenders, **references}, request, range(given.seeds), given.rounds, Path(place)
            )
    finally:
        if ray is not None:
            ray.shutdown()
        torch.set_num_threads(given.threads)
    alone = {threads: timings[name] for name, (_, threads) in references.items()} | {given.threads: timings["serial"]}
    return run.write(
        rows({name: timings[name] for name in contenders}, contenders, len(METHODS) * given.seeds, alone, starts),
        settings={key: getattr(given, key) for key in ("data", "seeds", "precision", "rounds")}
        | {"methods": list(METHODS), "epochs": request.epochs, "ray": with_ray},
        growth={kind: growth(timings, kind) for kind in ("processes", "ray")},
        same_accuracies=same(accuracies, {**contenders, **references}),
        timings=as_json(timings),
    )


def same(accuracies: Mapping[str, list[float]], contenders: Mapping[str, tuple[Engine, int]]) -> bool:
    """Whether contenders whose runs had the same number of threads reached the same accuracies, to the bit."""
    reached: dict[int, list[list[float]]] = {}
    for name, (_, threads) in contenders.items():
        reached.setdefault(threads, []).append(accuracies[name])
    return all(values == group[0] for group in reached.values() for values in group)


if __name__ == "__main__":
    sys.exit(main())
