"""How many runs an hour does a grid make? One after the other, several at a time in processes, and over a local Ray.

    python benchmarks/grid.py --jobs 1 2
    python benchmarks/grid.py --data cifar10 --device cuda --jobs 1 2 4 8

A unit of work is a whole grid in a new folder, from its planning to its last result. README.md says what each row is.
"""

from __future__ import annotations

import argparse
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
    write_result,
)

from saddlescape.runs.engines import Engine, Epoch, Job, Processes, RayCluster, Serial, Step
from saddlescape.runs.engines.ray_cluster import STORE, import_ray
from saddlescape.runs.grid import run_grid
from saddlescape.runs.plan import Request
from saddlescape.training.precision import resolve_device

METHODS = ("ce+drw", "ce+drw+sam")


def engines(jobs: Sequence[int], threads: int, with_ray: bool, on_gpu: bool) -> dict[str, tuple[Engine, int]]:
    """Name -> engine and the threads of each of its runs: one run alone has them all, N at a time share them."""
    contenders: dict[str, tuple[Engine, int]] = {"serial": (Serial(), threads)}
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
    """Runs an hour of each contender; over serial; and as a share of as many serial grids side by side.

    ``alone`` has the serial grid at each number of threads.
    """
    table: list[dict[str, Any]] = []
    for name, timing in timings.items():
        together = int(name.split()[-1]) if name != "serial" else 1
        bound = min(together, runs) * 3600 * runs / alone[contenders[name][1]].median
        speed = 3600 * runs / timing.median
        table.append(
            {
                "name": name,
                "runs_per_hour": speed,
                "over_serial": speed_ratio(timing, timings["serial"]),
                "roofline_runs_per_hour": bound,
                "share_of_roofline": speed / bound,
                "start_s": statistics.median(starts[name]),
                "threads_per_run": contenders[name][1],
            }
        )
    return table


def growth(timings: Mapping[str, Timing], kind: str) -> float | None:
    """Slope of log speed over log runs at a time: 1 is a machine that never gets full."""
    sizes = {name: int(name.split()[-1]) for name in timings if name.split()[0] == kind}
    slope = growth_exponent(list(sizes.values()), [timings[name].median for name in sizes])
    return None if slope is None else -slope


def show(table: Sequence[Mapping[str, Any]]) -> str:
    lines = [f"{'':<14}{'runs/hour':>10}{'over serial':>13}{'roofline':>10}{'share':>7}{'start':>9}{'threads':>9}"]
    for row in table:
        lines.append(
            f"{row['name']:<14}{row['runs_per_hour']:>10.1f}{row['over_serial']['value']:>12.2f}x"
            f"{row['roofline_runs_per_hour']:>10.1f}{row['share_of_roofline']:>7.2f}{row['start_s']:>7.1f} s"
            f"{row['threads_per_run']:>9}"
        )
    return "\n".join(lines)


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", choices=("digits", "cifar10"), default="digits")
    parser.add_argument("--seeds", type=int, default=4, help="of each of two methods (default: 4)")
    parser.add_argument("--epochs", type=int, help="of each run (default: digits 300, cifar10 1)")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2], help="runs at a time (default: 1 2)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of one run alone")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--ray", action=argparse.BooleanOptionalAction, help="default: where Ray is installed")
    parser.add_argument("--out", type=Path, help="JSON (default: benchmarks/results/grid-DEVICE.json)")
    options = parser.parse_args(argv)
    for name in ("seeds", "rounds", "threads", *(["epochs"] if options.epochs is not None else [])):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1")
    if min(options.jobs) < 1:
        parser.error("--jobs must be at least 1")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if argv is None else list(argv)
    options = arguments(given)
    device = resolve_device(options.device)
    with_ray = options.ray if options.ray is not None else importlib.util.find_spec("ray") is not None
    torch.set_num_threads(options.threads)
    taken = environment(device, given)
    say(f"{taken['device']}, {taken['threads']} threads, torch {taken['torch']}, load average {taken['load_average']}")
    if taken["load_average"] and taken["load_average"][0] > 0.5:
        say("other work runs on this machine: what several processes gain shows only where cores are free")
    request = Request(
        data=options.data, imbalance=50.0 if options.data == "digits" else 100.0,
        epochs=options.epochs or (300 if options.data == "digits" else 1), device=str(device),
        precision=options.precision, compile=False, eval_every=10**9,
    )  # fmt: skip
    seeds = range(options.seeds)
    runs = len(METHODS) * options.seeds
    contenders = engines(sorted(set(options.jobs)), options.threads, with_ray, device.type == "cuda")
    # The roofline of N runs at a time is N times what one alone does with the threads that each of the N has.
    shares = {threads for _, threads in contenders.values()} - {options.threads}
    references = {f"serial, {threads} threads": (Serial(), threads) for threads in sorted(shares)}
    ray: Any = None
    if with_ray:
        ray = import_ray()
        cores = max(usable_cores(), options.threads)
        ray.init(
            address="local", num_cpus=cores, object_store_memory=STORE, include_dashboard=False, log_to_driver=False,
            logging_level="ERROR",
        )  # fmt: skip
    try:
        with tempfile.TemporaryDirectory() as place:
            timings, accuracies, starts = contend(
                {**contenders, **references}, request, seeds, options.rounds, Path(place)
            )
    finally:
        if ray is not None:
            ray.shutdown()
        torch.set_num_threads(options.threads)
    alone = {threads: timings[name] for name, (_, threads) in references.items()} | {options.threads: timings["serial"]}
    table = rows({name: timings[name] for name in contenders}, contenders, runs, alone, starts)
    slopes = {kind: growth(timings, kind) for kind in ("processes", "ray")}
    say(show(table))
    for kind, slope in slopes.items():
        if slope is not None:
            say(f"growth of speed with runs at a time, {kind}: {slope:.2f}")
    out = options.out or ROOT / "benchmarks" / "results" / f"grid-{device.type}.json"
    write_result(
        out,
        {
            "benchmark": "grid",
            "schema": SCHEMA,
            "environment": taken | {"load_average_at_end": load_average()},
            "settings": {
                "data": options.data,
                "methods": list(METHODS),
                "seeds": options.seeds,
                "epochs": request.epochs,
                "precision": options.precision,
                "rounds": options.rounds,
                "ray": with_ray,
            },
            "rows": table,
            "growth": slopes,
            "same_accuracies": same(accuracies, {**contenders, **references}),
            "timings": {name: timing.as_json() for name, timing in timings.items()},
        },
    )
    say(f"written to {out.name}")
    return 0


def same(accuracies: Mapping[str, list[float]], contenders: Mapping[str, tuple[Engine, int]]) -> bool:
    """Whether contenders whose runs had the same number of threads reached the same accuracies, to the bit."""
    reached: dict[int, list[list[float]]] = {}
    for name, (_, threads) in contenders.items():
        reached.setdefault(threads, []).append(accuracies[name])
    return all(values == group[0] for group in reached.values() for values in group)


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
