"""The commands curvature, surface and escape, and train --track-curvature: what they print, what they refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

CHEAP = ("--extremes-only", "--no-gauss-newton", "--products", 1, "--tol", 0.05, "--device", "cpu")


@pytest.fixture
def run(digits_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits_run, tmp_path / "run"))


def test_it_prints_the_table_and_reuses_what_is_measured(cli: Any, run: Path) -> None:
    outcome = cli("curvature", run, "--classes", "9", *CHEAP)
    assert outcome.code == 0, outcome.err
    row = json.loads((run / "curvature.json").read_text())["classes"][0]
    assert f"{row['lambda_min']:.4g}" in outcome.out
    assert f"{row['lambda_max']:.4g}" in outcome.out
    assert "curvature.json" in outcome.out
    again = cli("curvature", run, "--classes", "9", *CHEAP)
    assert again.code == 0
    assert "already measured" in again.err
    assert again.out == outcome.out


def test_a_line_and_an_arm(cli: Any, run: Path) -> None:
    line = cli("surface", run, "--line", "--steps", 3, "--directions", "random", "--classes", "9", "--device", "cpu")
    assert line.code == 0, line.err
    (file,) = run.glob("surface-random-1d-ce-*.npz")
    assert str(file) in line.out
    arm = cli("escape", run, "--arms", "sgd", "--epochs", 1, "--classes", "9", "--products", 3, "--device", "cpu")
    assert arm.code == 0, arm.err
    assert "no verdict" in arm.out
    assert json.loads((run / "escape.json").read_text())["arms"][0]["arm"] == "sgd"


def test_training_with_curvature_beside_it(cli: Any, tmp_path: Path) -> None:
    out = tmp_path / "live"
    tracking = ("--track-curvature", "every=1,samples=2,products=3")
    outcome = cli("train", "digits", "--method", "ce", "--device", "cpu", *tracking, "--epochs", 2, "--out", out,
                  "--keep-every", 1)  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "curvature was measured 2 times" in outcome.err
    lines = [json.loads(line) for line in (out / "curvature-course.jsonl").read_text().splitlines()]
    assert lines[0]["format"] == "saddlescape-curvature-course-1"
    classes = [line for line in lines[1:] if "label" in line and line["epoch"] == 2]
    assert [line["label"] for line in classes] == list(range(10))
    assert {line["source"] for line in classes} == {"live"}
    means = [line for line in lines[1:] if "label" not in line and line["epoch"] == 2]
    assert [line["group"] for line in means] == ["head", "mid", "tail"]
    metrics = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert [line["test_accuracy"] for line in classes] == metrics["test"]["per_class"]

    # The same file from checkpoints: nothing is left to measure.
    course = cli("curvature", out, "--over-training", "--samples-per-class", 2, "--products", 3, "--device", "cpu")
    assert course.code == 0, course.err
    assert "already measured" in course.err
    assert f"{means[2]['lambda_min']:.4g}" in course.out

    # In float64 the same images have the same losses.
    exact = cli("curvature", out, "--over-training", "--samples-per-class", 2, "--products", 3, "--device", "cpu",
                "--dtype", "float64")  # fmt: skip
    assert exact.code == 0, exact.err
    rows = [json.loads(line) for line in (out / "curvature-course.jsonl").read_text().splitlines()]
    assert rows[0]["settings"]["dtype"] == "float64"
    losses = [row["loss"] for row in rows[1:] if "label" in row and row["epoch"] == 2]
    assert losses == pytest.approx([line["loss"] for line in classes], rel=1e-4)


def test_the_hint_is_shown_with_its_caveats(cli: Any, run: Path) -> None:
    words = ("--advise-rho", "--classes", "9", "--rho", "0.1", "1", "--products", 5, "--device", "cpu")
    outcome = cli("curvature", run, *words)
    assert outcome.code == 0, outcome.err
    assert "hint" in outcome.out
    assert "the other way" in outcome.out
    assert json.loads((run / "rho-advice.json").read_text())["settings"]["rhos"] == [0.1, 1.0]
