"""The runner of all benchmarks: options, interleaved timing, ratios, peak memory, growth, the JSON and its table.

A figure counts only as a ratio of two medians measured in one process, the contenders taking turns, so that whatever
else the machine does meets all of them alike.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import random
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import saddlescape
from saddlescape.data.cores import usable_cores
from saddlescape.runs.execute import commit
from saddlescape.training.precision import resolve_device

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = 1
PACKAGES = ("torch", "numpy", "pillow")

Work = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds per unit of work, one entry a sample, in the order taken."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def quartiles(self) -> tuple[float, float]:
        return quartiles(self.samples)

    def as_json(self) -> dict[str, Any]:
        return {
            "median_s": self.median,
            "quartiles_s": list(self.quartiles),
            "samples_s": [round(value, 7) for value in self.samples],
        }


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """First and third quartile, interpolated between the samples; a single sample is both."""
    if len(values) == 1:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def synchronizer(device: torch.device) -> Work:
    """What waits until ``device`` has done all that was asked of it."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return lambda: None


def interleave(
    contenders: Mapping[str, Work], rounds: int, *, block: int = 1, synchronize: Work = lambda: None, seed: int = 0
) -> dict[str, Timing]:
    """Time ``block`` units of work of every contender in turn, ``rounds`` times, in a new random order each round.

    The device is waited for before and after a block, never within it, so that a contender whose host runs ahead of
    the device may do so. Warm up first: nothing is thrown away here.
    """
    order = list(contenders)
    shuffle = random.Random(seed).shuffle
    samples: dict[str, list[float]] = {name: [] for name in order}
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            work = contenders[name]
            synchronize()
            started = time.perf_counter()
            for _ in range(block):
                work()
            synchronize()
            samples[name].append((time.perf_counter() - started) / block)
    return {name: Timing(tuple(values)) for name, values in samples.items()}


def warm_up(contenders: Mapping[str, Work], times: int, synchronize: Work = lambda: None) -> dict[str, float]:
    """Run each contender ``times`` times; returns the seconds of its very first run, compilation included."""
    first: dict[str, float] = {}
    for name, work in contenders.items():
        started = time.perf_counter()
        work()
        synchronize()
        first[name] = time.perf_counter() - started
        for _ in range(times - 1):
            work()
    synchronize()
    return first


def row(name: str, value: float | None, unit: str, **more: Any) -> dict[str, Any]:
    """A figure of a result."""
    return {"name": name, "value": value, "unit": unit, **more}


def ratio_row(name: str, ours: Timing, peer: Timing, unit: str = "times", **more: Any) -> dict[str, Any]:
    """How many times faster ours is: the ratio of the medians, and the quartiles of the ratios round by round."""
    paired = [theirs / mine for mine, theirs in zip(ours.samples, peer.samples, strict=True)]
    value, spread = peer.median / ours.median, list(quartiles(paired))
    return row(name, value, unit, quartiles=spread, ours=ours.as_json(), peer=peer.as_json(), **more)


def as_json(timings: Mapping[str, Timing]) -> dict[str, Any]:
    return {name: timing.as_json() for name, timing in timings.items()}


def growth(sizes: Sequence[float], timings: Mapping[str, Mapping[str, Timing]]) -> dict[str, Any]:
    """The record of ``timings``, size -> contender -> timing, with each contender's exponent."""
    names = next(iter(timings.values()))
    medians = {name: [each[name].median for each in timings.values()] for name in names}
    return {
        "sizes": list(sizes),
        "timings": {size: as_json(each) for size, each in timings.items()},
        "exponent": {name: growth_exponent(sizes, seconds) for name, seconds in medians.items()},
    }


def growth_exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float | None:
    """Slope of log(seconds) over log(size) by least squares: 1 is linear. None where there is one size only."""
    if len(set(sizes)) < 2:
        return None
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in seconds]
    return statistics.linear_regression(x, y).slope


def peak_bytes(work: Work, device: torch.device) -> int:
    """Most bytes that ``work`` held at once beyond what was held when it began.

    CUDA: the caching allocator's own peak. CPU: the running sum of every allocation and release that torch's CPU
    allocator reports to the profiler. Scratch space that oneDNN or cuDNN takes from elsewhere is not seen. On the CPU
    the release of a tensor made before profiling began is not reported, so drop gradients before calling this.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        held = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - held
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event.get("name") == "[memory]")
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak


# --- where, when and with what ------------------------------------------------------------------------------------


def environment(device: torch.device, argv: Sequence[str]) -> dict[str, Any]:
    """The machine, the versions, the commit and the command of this process, as plain JSON."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model(),
        "cpu": cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "saddlescape": saddlescape.__version__,
        **{name: metadata.version(name) for name in PACKAGES},
        "commit": commit() or "unknown",
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *argv]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load_average": load_average(),
    }


def load_average() -> list[float] | None:
    """Runnable processes over the last 1, 5 and 15 minutes; None where the system does not tell."""
    return [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


# --- a call of a benchmark ----------------------------------------------------------------------------------------


def positive(text: str) -> int:
    """The type of an option that counts something."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value}: at least 1")
    return value


def options_of(doc: str | None, timed: bool = True) -> argparse.ArgumentParser:
    """A parser with the options that all benchmarks have; ``timed`` ones have threads and a device."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, required=not timed, help="JSON (default: results/NAME-DEVICE.json)")
    if timed:
        made.add_argument("--threads", type=positive, default=usable_cores(), help="torch's (default: all cores)")
        made.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    return made


class Run:
    """One call of benchmark ``name``: its options, its device, and where its figures are taken."""

    def __init__(self, name: str, parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> None:
        given = sys.argv[1:] if argv is None else list(argv)
        self.name, self.options = name, parser.parse_args(given)
        self.device = resolve_device(getattr(self.options, "device", "cpu"))
        self.out: Path = self.options.out or ROOT / "benchmarks" / "results" / f"{name}-{self.device.type}.json"
        self.argv = [_without_folders(word, vars(self.options).values()) for word in given]
        if "threads" in self.options:
            torch.set_num_threads(self.options.threads)
            taken = self.taken_at()
            say(f"{taken['device']}, {taken['threads']} threads, torch {taken['torch']}, load {taken['load_average']}")
            if taken["load_average"] and taken["load_average"][0] > 0.5:
                say("other work runs on this machine: ratios hold roughly, milliseconds do not")
        self.environment = self.taken_at()

    def taken_at(self) -> dict[str, Any]:
        return environment(self.device, self.argv)

    def write(
        self, rows: Sequence[Mapping[str, Any]], lines: Sequence[str] | None = None, show: bool = True, **content: Any
    ) -> int:
        """Write ``rows`` and ``content`` as JSON, whole or not at all, and print the table; returns the exit code.

        ``lines`` are a table of the benchmark's own in Markdown, written beside the JSON.
        """
        ended = {"load_average_at_end": load_average()}
        known = {"benchmark": self.name, "schema": SCHEMA, "environment": self.environment | ended, "rows": rows}
        self.out.parent.mkdir(parents=True, exist_ok=True)
        part = self.out.with_name(self.out.name + ".part")
        part.write_text(json.dumps(known | content, indent=1) + "\n")
        part.replace(self.out)
        if lines is not None:
            self.out.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        if show:
            say("\n".join(lines) if lines is not None else table(rows))
            say(f"written to {self.out.name}")
        return 0


def _without_folders(word: str, values: Iterable[Any]) -> str:
    """No result names the folders of the machine that it was taken on."""
    paths = [one for value in values for one in (value if isinstance(value, list) else [value])]
    return Path(word).name if any(isinstance(path, Path) and path == Path(word) for path in paths) else word


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows as text; ratios with the milliseconds of ours and of the peer."""
    lines = [f"{'figure':<66}{'value':>10} {'quartiles':>16}  unit, ms of ours / of the peer"]
    for each in rows:
        value = "-" if each["value"] is None else f"{each['value']:.4g}"
        spread = "{:.3g}..{:.3g}".format(*each["quartiles"]) if "quartiles" in each else ""
        times = [f"{1e3 * each[who]['median_s']:.4g}" for who in ("ours", "peer") if who in each]
        lines.append(f"{each['name']:<66}{value:>10} {spread:>16}  {each['unit']}  {' / '.join(times)}".rstrip())
    return "\n".join(lines)


def say(text: str) -> None:
    print(text, flush=True)
