"""The experiment on the hint: what it counts is what the runs and the advice say."""

from __future__ import annotations

import json
import types
from pathlib import Path

import pytest

from saddlescape.records.files import read_result
from saddlescape.records.rho_advice import AdviceFile

SCRIPT = "rho_hint"


@pytest.mark.slow
def test_a_row_a_radius_from_the_runs_and_their_advice(script: types.ModuleType, tmp_path: Path) -> None:
    runs, out = tmp_path / "runs", tmp_path / "hint.json"
    argv = ["--seeds", "0", "--rhos", "0.1", "1.6", "--epochs", "4", "--at", "2", "4", "--samples", "16"]
    argv += ["--runs", str(runs), "--out", str(out)]
    assert script.main(argv) == 0
    content = json.loads(out.read_text())
    assert [row["rho"] for row in content["rows"]] == [0, 0.1, 1.6]
    for row, name in zip(content["rows"], ("ce+drw", "ce+drw+sam-0.1", "ce+drw+sam-1.6"), strict=True):
        result = read_result(runs / f"{name}-seed0")
        assert result is not None and row["accuracy"] == {"mean": result["accuracy"], "std": None}
    assert f"| 0.1 | {content['rows'][1]['accuracy']['mean']:.1f} |" in out.with_suffix(".md").read_text()
    advice = json.loads((runs / "ce+drw-seed0" / AdviceFile.NAME).read_text())  # of the last checkpoint
    saddles = [row for row in advice["classes"] if row["group"] == "tail" and row["negative_curvature_proved"]]
    assert [hint["lambda_min"] for hint in content["hints"] if hint["epoch"] == 4] == [
        [row["lambda_min"] for row in saddles]
    ]
    amplified = [1.6 in row["class_batches"]["amplified_rho"] for row in saddles]
    assert content["rows"][2]["amplified"]["class_batches"]["4"] == pytest.approx(sum(amplified) / len(amplified))
    written = (runs / "ce+drw-seed0" / "config.toml").stat().st_mtime_ns
    assert script.main(argv) == 0  # nothing is trained again
    assert (runs / "ce+drw-seed0" / "config.toml").stat().st_mtime_ns == written
    assert json.loads(out.read_text())["rows"] == content["rows"]


def test_means_spreads_and_the_first_radius_that_amplifies_most(script: types.ModuleType) -> None:
    scores = [
        {"seed": seed, "rho": rho, "accuracy": accuracy, "tail": 2 * accuracy}
        for seed, rho, accuracy in ((0, 0.0, 10.0), (1, 0.0, 20.0), (0, 0.5, 30.0), (1, 0.5, 30.0), (0, 2.0, 1.0))
    ]
    hint = {"epoch": 3, "saddles": ["a", "b", "c"], "training_batches": [[], [], []]}
    hints = [{**hint, "class_batches": [[2.0], [0.5, 2.0], []]}]
    rows = script.by_radius(scores, hints, [0.5, 2.0])
    assert rows[0]["accuracy"] == {"mean": 15.0, "std": pytest.approx(50**0.5)}
    assert [row["amplified"]["class_batches"]["3"] for row in rows] == [0, pytest.approx(1 / 3), pytest.approx(2 / 3)]
    told = script.summary(rows, hints)
    assert (told["best_tail"]["rho"], told["tail_saddles"]) == (0.5, 3)
    assert told["amplifies_most_from"] == {"class_batches": {"3": 2.0}, "training_batches": {"3": None}}
