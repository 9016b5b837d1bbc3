"""A run in a process of its own: what is told is what its files say, and its memory and time are those of a process."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest

from saddlescape.records.files import read_result, read_rows

SCRIPT = "large_run"


@pytest.mark.slow
def test_what_is_told_is_what_the_run_says(
    script: types.ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "large.json"
    argv = [
        "--dataset", "digits", "--root", str(tmp_path), "--epochs", "2", "--micro-batch", "100", "--accumulate", "2",
        "--precision", "float32", "--threads", "1", "--run", str(run), "--out", str(out),
    ]  # fmt: skip
    assert script.main(argv) == 0
    content, result = json.loads(out.read_text()), read_result(run)
    assert result is not None
    rows = {row["name"]: row["value"] for row in content["rows"]}
    speeds = [row["images_per_second"] for row in read_rows(run / "metrics.jsonl")]
    assert len(speeds) == 2 and rows["images per second of training, last epoch"] == speeds[-1]
    assert rows["accuracy, tail"] == result["tail"] and content["training_images"] == 331
    assert 2**-3 < rows["peak memory, workers included"] < 4  # torch alone is more than an eighth of a GiB
    assert 0.1 < rows["processors kept busy"] < 8 and rows["whole command"] > result["seconds"]
    assert str(tmp_path) not in out.read_text()
    with pytest.raises(SystemExit, match="a finished run lies here"):
        script.main(argv)


def test_a_command_that_fails_is_named(script: types.ModuleType) -> None:
    with pytest.raises(SystemExit, match=r"failed: .*exit"):
        script.watched([sys.executable, "-c", "exit(3)"], 1)


def test_memory_counts_the_children(script: types.ModuleType) -> None:
    hold = "x = bytearray(200 * 2**20); import time; time.sleep(1.5)"
    used = script.watched(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"], 1
    )
    assert 200 * 2**20 < used["peak_bytes"] < 2**30 and used["seconds"] > 1.5
