"""A whole run on a large set: how many images a second, and how much memory, from the list files to the last score?

    python tools/make_longtail_set.py imagenet-lt made --classes 100 --scale 0.1
    python benchmarks/large_run.py --root made --epochs 2 --run runs/large

The command that a person would type, in a process of its own; the memory is that of it and of its workers. README.md
says what each row is.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from common import Run, options_of, positive, row, usable_cores

from saddlescape.records.files import read_result, read_rows

SAMPLES_A_SECOND = 2
KEPT = ("model", "precision", "accuracy", "head", "mid", "tail", "seconds")


def used_by(process: psutil.Process) -> tuple[int, float]:
    """Memory and processor seconds of a process and all below it; memory that they share is counted once (Linux's PSS,
    else resident bytes)."""
    held, seconds = 0, 0.0
    for each in [process, *process.children(recursive=True)]:
        try:
            memory, times = each.memory_full_info(), each.cpu_times()
        except psutil.Error:  # it ended meanwhile
            continue
        held += getattr(memory, "pss", memory.rss)
        seconds += times.user + times.system
    return held, seconds


def watched(command: Sequence[str], threads: int) -> dict[str, float]:
    """Run ``command`` to its end: its wall and processor seconds, and the greatest memory seen."""
    begun, peak, seconds = time.perf_counter(), 0, 0.0
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": str(threads)}) as running:
        process = psutil.Process(running.pid)
        while running.poll() is None:
            try:
                held, busy = used_by(process)
            except psutil.Error:
                break
            peak, seconds = max(peak, held), max(seconds, busy)
            time.sleep(1 / SAMPLES_A_SECOND)
    if running.returncode:
        raise SystemExit("failed: " + shlex.join(command))
    return {"seconds": time.perf_counter() - begun, "processor_seconds": seconds, "peak_bytes": peak}


def rows_of(result: dict[str, Any], epochs: Sequence[dict[str, Any]], used: dict[str, float]) -> list[dict[str, Any]]:
    speeds = [epoch["images_per_second"] for epoch in epochs]
    return [
        row("images per second of training, last epoch", speeds[-1], "images/s"),
        row("images per second of training, first epoch", speeds[0], "images/s"),
        row("whole command", used["seconds"], "s"),
        row("processors kept busy", used["processor_seconds"] / used["seconds"], "cores"),
        row("peak memory, workers included", used["peak_bytes"] / 2**30, "GiB"),
        *(row(f"accuracy, {group}", result[group], "%") for group in ("head", "mid", "tail")),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = options_of(__doc__, timed=False)
    parser.add_argument("--dataset", default="imagenet-lt", help="as saddlescape train takes it")
    parser.add_argument("--root", type=Path, required=True, help="folder of the lists and images")
    parser.add_argument("--method", default="ldam+drw+sam")
    parser.add_argument("--epochs", type=positive, default=2)
    parser.add_argument("--micro-batch", type=positive, default=32, help="images at once (default %(default)s)")
    parser.add_argument("--accumulate", type=positive, default=8, help="such batches in a step (default %(default)s)")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=positive, default=usable_cores())
    parser.add_argument("--run", type=Path, required=True, help="a new run folder")
    run = Run("large_run", parser, argv)
    given = run.options
    options = [
        "--method", given.method, "--epochs", str(given.epochs), "--batch-size", str(given.micro_batch),
        "--precision", given.precision, "--eval-every", str(given.epochs),
        "--set", f"train.accumulate={given.accumulate}",
    ]  # fmt: skip
    if read_result(given.run) is not None:
        raise SystemExit(f"{given.run}: a finished run lies here; name a new folder")
    folders = ["--root", str(given.root), "--out", str(given.run)]
    used = watched([sys.executable, "-m", "saddlescape", "train", given.dataset, *options, *folders], given.threads)
    result, epochs = read_result(given.run), read_rows(given.run / "metrics.jsonl")
    assert result is not None
    return run.write(
        rows_of(result, epochs, used),
        trained_by=shlex.join(["saddlescape", "train", given.dataset, "--root", given.root.name, *options]),
        training_images=sum(result["class_counts"]),
        used=used,
        result={key: result[key] for key in KEPT},
        epochs=epochs,
    )


if __name__ == "__main__":
    sys.exit(main())
