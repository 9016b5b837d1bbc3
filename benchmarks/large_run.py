"""A whole run on a large set: how many images a second, and how much memory, from the list files to the last score?

    python tools/make_longtail_set.py imagenet-lt made --classes 100 --scale 0.1
    python benchmarks/large_run.py --root made --epochs 2 --run runs/large

The command that a person would type, in a process of its own; the memory is that of it and of its workers. README.md
says what each row is.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from common import ROOT, SCHEMA, environment, usable_cores, write_result

from saddlescape.runs.format import read_result, read_rows

SAMPLES_A_SECOND = 2
KEPT = ("model", "precision", "accuracy", "head", "mid", "tail", "seconds")


def tree_bytes(process: psutil.Process) -> int:
    """Memory of a process and all below it; what they share is counted once (Linux's PSS, else resident bytes)."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            held = each.memory_full_info()
        except psutil.Error:  # it ended meanwhile
            continue
        total += getattr(held, "pss", held.rss)
    return total


def watched(command: Sequence[str], threads: int) -> dict[str, float]:
    """Run ``command`` to its end: its wall and processor seconds, and the greatest memory seen."""
    begun, peak, seconds = time.perf_counter(), 0, 0.0
    with subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": str(threads)}) as running:
        process = psutil.Process(running.pid)
        while running.poll() is None:
            try:
                peak = max(peak, tree_bytes(process))
                seconds = max(seconds, _processor_seconds(process))
            except psutil.Error:
                break
            time.sleep(1 / SAMPLES_A_SECOND)
    if running.returncode:
        raise SystemExit("failed: " + shlex.join(command))
    return {"seconds": time.perf_counter() - begun, "processor_seconds": seconds, "peak_bytes": peak}


def _processor_seconds(process: psutil.Process) -> float:
    total = 0.0
    for each in [process, *process.children(recursive=True)]:
        try:
            times = each.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def rows_of(result: dict[str, Any], epochs: Sequence[dict[str, Any]], used: dict[str, float]) -> list[dict[str, Any]]:
    speeds = [epoch["images_per_second"] for epoch in epochs]
    return [
        {"name": "images per second of training, last epoch", "value": speeds[-1], "unit": "images/s"},
        {"name": "images per second of training, first epoch", "value": speeds[0], "unit": "images/s"},
        {"name": "whole command", "value": used["seconds"], "unit": "s"},
        {"name": "processors kept busy", "value": used["processor_seconds"] / used["seconds"], "unit": "cores"},
        {"name": "peak memory, workers included", "value": used["peak_bytes"] / 2**30, "unit": "GiB"},
        *({"name": f"accuracy, {group}", "value": result[group], "unit": "%"} for group in ("head", "mid", "tail")),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="imagenet-lt", help="as saddlescape train takes it")
    parser.add_argument("--root", type=Path, required=True, help="folder of the lists and images")
    parser.add_argument("--model", default="", help="default: the recipe's, ResNet-50")
    parser.add_argument("--method", default="ldam+drw+sam")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--micro-batch", type=int, default=32, help="images at once (default %(default)s)")
    parser.add_argument("--accumulate", type=int, default=8, help="such batches in a step (default %(default)s)")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--run", type=Path, required=True, help="a new run folder")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "large_run-cpu.json")
    options = parser.parse_args(argv)
    command = [
        "train", options.dataset, "--root", str(options.root), "--method", options.method,
        "--epochs", str(options.epochs), "--batch-size", str(options.micro_batch), "--precision", options.precision,
        "--eval-every", str(options.epochs), "--set", f"train.accumulate={options.accumulate}",
    ]  # fmt: skip
    if options.model:
        command += ["--model", options.model]
    names = {
        str(options.root): options.root.name,
        str(options.run): options.run.name,
        str(options.out): options.out.name,
    }
    taken = environment(torch.device("cpu"), [names.get(word, word) for word in argv])  # no paths of a machine
    if read_result(options.run) is not None:
        raise SystemExit(f"{options.run}: a finished run lies here; name a new folder")
    used = watched([sys.executable, "-m", "saddlescape", *command, "--out", str(options.run)], options.threads)
    result, epochs = read_result(options.run), read_rows(options.run / "metrics.jsonl")
    assert result is not None
    rows = rows_of(result, epochs, used)
    write_result(
        options.out,
        {
            "benchmark": "large_run",
            "schema": SCHEMA,
            "environment": taken | {"threads": options.threads},
            "trained_by": shlex.join(["saddlescape", *(names.get(word, word) for word in command)]),
            "training_images": sum(result["class_counts"]),
            "used": used,
            "result": {key: result[key] for key in KEPT},
            "epochs": epochs,
            "rows": rows,
        },
    )
    for row in rows:
        print(f"{row['name']:<46}{row['value']:>10.2f} {row['unit']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
