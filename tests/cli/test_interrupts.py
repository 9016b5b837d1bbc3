"""What comes from outside in the middle of a run: Ctrl-C, a full disk, a second process."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LONG = ["train", "digits", "--method", "ce", "--epochs", "100000", "--eval-every", "100000", "--out", "run"]


@pytest.fixture
def running(tmp_path):
    """A real process that trains; past its first epoch when the test begins."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "saddlescape", *LONG, "--device", "cpu", "--precision", "float32", "--no-compile"],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    patience = time.monotonic() + 240
    while not list(tmp_path.glob("run/checkpoint/s0-*")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < patience
        time.sleep(0.05)
    yield process
    if process.poll() is None:
        process.kill()
    process.communicate()


def test_ctrl_c_ends_with_130_one_line_and_a_checkpoint(cli, running):
    # Meanwhile nobody else may write into the folder.
    complaint = cli(*LONG, "--device", "cpu", "--precision", "float32", "--no-compile").complaint
    assert "run is in use by another process" in complaint
    running.send_signal(signal.SIGINT)
    out, err = running.communicate()
    assert running.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("saddlescape: ")]
    assert lines == [err.splitlines()[-1]]
    assert "a checkpoint was written" in lines[0]
    assert not Path("run/result.json").exists()
    assert cli("evaluate", "run").code == 0


@pytest.fixture
def small_disk():
    """No file of this process may grow beyond 100 KB: what a full disk does to a checkpoint."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))

    def grow() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    yield grow
    grow()
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_one_line_and_the_run_goes_on_when_there_is_room(cli, small_disk):
    command = ("train", "digits", "--method", "ce", "--epochs", 2, "--out", "run", "--device", "cpu")
    complaint = cli(*command).complaint
    assert "could not write the checkpoint" in complaint
    assert not any(Path("run/checkpoint").iterdir())
    small_disk()
    assert cli(*command).code == 0
    assert json.loads(Path("run/result.json").read_text())["epochs"] == 2
