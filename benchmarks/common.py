"""What the benchmarks share: interleaved timing, medians and ratios, peak memory, growth, and where a figure was taken.

A figure counts only as a ratio of two medians measured in one process, the contenders taking turns, so that whatever
else the machine does meets all of them alike.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import platform
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

import saddlescape

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


def speed_ratio(ours: Timing, peer: Timing) -> dict[str, Any]:
    """How many times faster ours is: the ratio of the medians, and the quartiles of the ratios round by round."""
    paired = [theirs / mine for mine, theirs in zip(ours.samples, peer.samples, strict=True)]
    return {"value": peer.median / ours.median, "quartiles": list(quartiles(paired))}


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
        "device": device_name(device),
        "cpu": cpu_model(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "saddlescape": saddlescape.__version__,
        **{name: metadata.version(name) for name in PACKAGES},
        "commit": commit(),
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *argv]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load_average": load_average(),
    }


def usable_cores() -> int:
    """Cores this process may run on, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_model()


def commit() -> str:
    """The checked-out commit, with "+changes" where tracked files differ from it; "unknown" outside a checkout."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        return _git("rev-parse", "HEAD") + ("+changes" if _git("status", "--porcelain", "-uno") else "")
    return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write ``result`` as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(result, indent=1) + "\n")
    part.replace(path)
