"""A real process is killed with SIGKILL at many points and started again: the end is the same, bit for bit.

One driver process imports the library once and forks a child for each run, so that a run costs no imports; a child
runs the command line and kills itself with the real signal at a chosen point. One test kills a plain
``python -m saddlescape`` from outside, at whatever moment it happens to be in.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from saddlescape.training.checkpoint import Cursor
from support import assert_same_end, end_of, result_of, rows_of

pytestmark = pytest.mark.slow

# Four steps an epoch; deferred re-weighting begins with the last of three epochs (resuming across the switch).
COMMAND = [
    "train", "digits", "--method", "ce+drw+sam", "--epochs", "3", "--batch-size", "100",
    "--device", "cpu", "--no-compile",
]  # fmt: skip
DRIVER = r"""
import json, os, signal, sys
from pathlib import Path
os.environ["COLUMNS"] = "500"
import torch
torch.set_num_threads(1)
from saddlescape.cli.app import main
import saddlescape.cli.train
import saddlescape.runs.execute as execute
import saddlescape.records.files as files
import saddlescape.training.checkpoint as checkpoint
import saddlescape.training.loop as loop

def after(place, name, number, act):
    "Call act after the number-th call of place.name."
    inner, calls = getattr(place, name), [0]
    def wrapped(*args, **kw):
        value = inner(*args, **kw)
        calls[0] += 1
        if calls[0] == number:
            act(*args)
        return value
    setattr(place, name, wrapped)

def kill(*args):
    os.kill(os.getpid(), signal.SIGKILL)

def half(weights_path, *args):
    data = Path(weights_path).read_bytes()
    Path(weights_path).write_bytes(data[: len(data) // 2])
    kill()

def arm(point):
    kind, number = point.split(":")
    number = int(number)
    if kind == "step":
        after(loop, "train_step", number, kill)
    elif kind == "row":
        after(files, "append_row", number, kill)
    elif kind == "half":
        after(checkpoint, "save_weights", number, half)
    elif kind == "written":
        after(checkpoint, "_sync", 3 * number, kill)  # whole, under its temporary name
    elif kind == "saved":
        after(checkpoint.CheckpointFolder, "save", number, kill)
    elif kind == "summary":
        after(execute, "summarise", number, kill)
    elif kind == "term":
        after(loop, "train_step", number, lambda *args: os.kill(os.getpid(), signal.SIGTERM))
    elif kind == "int":
        after(loop, "train_step", number, lambda *args: os.kill(os.getpid(), signal.SIGINT))

command, jobs = json.loads(sys.argv[1])
# Whatever is imported late is imported here, once, by deciding on a run and dropping it. (No backward pass: torch's
# engine does not like to be forked.)
from saddlescape.runs.plan import plan
from saddlescape.runs.request import Request
plan(Request(data="digits", method="ce+drw+sam", epochs=3, device="cpu", compile=False))
for name, points in jobs:
    for attempt, point in enumerate([*points, "none:0"]):
        child = os.fork()
        if child == 0:
            with open(f"{name}.out", "a") as out:
                os.dup2(out.fileno(), 1)
                os.dup2(out.fileno(), 2)
            arm(point)
            try:
                main([*command, "--out", name])
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        left = sorted(entry.name for entry in Path(name, "checkpoint").glob("s*"))
        print(json.dumps([name, point, code, left, Path(name, "result.json").exists()]), flush=True)
"""

# Each list is one run: stopped at these points, one after the other, then left alone. The run of the first list dies in
# every kind of place; those of the others are asked to stop, which saves in mid-epoch, or die at random steps.
POINTS = {
    "everywhere": [
        "step:2",
        "row:1",
        "half:1",
        "saved:1",
        "row:1",
        "written:1",
        "step:3",
        "half:1",
        "row:2",
        "summary:1",
    ],
    "terminated": ["term:6", "step:1"],
    "interrupted": ["int:2", "term:2", "int:3"],
    "at-random": [
        f"step:{random.Random(5).choice(range(1, 12))}",
        "step:1",
        f"step:{random.Random(6).choice(range(1, 9))}",
    ],
}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def driven(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Any]]]:
    """The folder with a run for each name, and what each attempt left: (point, exit code, checkpoints, result)."""
    folder = tmp_path_factory.mktemp("killed")
    jobs = [["whole", []], *([name, points] for name, points in POINTS.items())]
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps([COMMAND, jobs])],
        cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    attempts: dict[str, list[Any]] = {}
    for line in done.stdout.splitlines():
        name, *attempt = json.loads(line)
        attempts.setdefault(name, []).append(attempt)
    return folder, attempts


def test_the_run_that_is_never_stopped(driven: tuple[Path, dict[str, list[Any]]]) -> None:
    folder, attempts = driven
    assert [(code, result) for _, code, _, result in attempts["whole"]] == [(0, True)], (
        folder / "whole.out"
    ).read_text()
    assert len(rows_of(folder / "whole")) == result_of(folder / "whole")["epochs"] == 3
    assert end_of(folder / "whole").cursor == Cursor(0, 3)


@pytest.mark.parametrize("name", POINTS)
def test_killed_and_resumed_is_the_same_to_the_bit(driven: tuple[Path, dict[str, list[Any]]], name: str) -> None:
    folder, attempts = driven
    *stopped, last = attempts[name]
    for point, code, checkpoints, result in stopped:
        polite = point.startswith(("term", "int"))
        assert code == (130 if polite else -signal.SIGKILL), (folder / f"{name}.out").read_text()
        assert not result
        if polite:
            assert checkpoints
    assert (last[1], last[3]) == (0, True), (folder / f"{name}.out").read_text()
    assert_same_end(folder / "whole", folder / name)
    assert not list((folder / name / "checkpoint").glob(".writing-*"))


def test_a_polite_stop_saves_in_the_middle_of_an_epoch(driven: tuple[Path, dict[str, list[Any]]]) -> None:
    folder, attempts = driven
    assert attempts["terminated"][0][2][-1] == Cursor(0, 1, 2).folder
    newest = [checkpoints[-1] for _, _, checkpoints, _ in attempts["interrupted"]]
    assert newest[:3] == [Cursor(0, 0, 2).folder, Cursor(0, 1).folder, Cursor(0, 1, 3).folder]
    text = (folder / "terminated.out").read_text()
    assert "interrupted; a checkpoint was written: run the same command again to go on" in text
    assert "resuming terminated after stage 'train', epoch 1, batch 2" in text
    assert "Traceback" not in text


def test_a_kill_leaves_what_the_story_says(driven: tuple[Path, dict[str, list[Any]]]) -> None:
    _, attempts = driven
    newest = [(point, checkpoints[-1] if checkpoints else "") for point, _, checkpoints, _ in attempts["everywhere"]]
    one, two, three = (Cursor(0, epoch).folder for epoch in (1, 2, 3))
    assert newest == [
        ("step:2", ""), ("row:1", ""), ("half:1", ""),  # nothing of the first epoch is left, except a row
        ("saved:1", one), ("row:1", one), ("written:1", one), ("step:3", one), ("half:1", one),
        ("row:2", two),  # the second epoch done, the third's row written, its checkpoint not
        ("summary:1", three), ("none:0", three),
    ]  # fmt: skip


def test_a_plain_process_killed_from_outside(driven: tuple[Path, dict[str, list[Any]]], tmp_path: Path) -> None:
    folder, _ = driven
    command = [sys.executable, "-m", "saddlescape", *COMMAND, "--out", "run"]
    run, rows = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    with subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not (rows.exists() and rows.stat().st_size):
            time.sleep(0.002)
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (run / "result.json").exists()
    again = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr
    assert_same_end(folder / "whole", run)
