"""The comparison of two runs: what it says is what the files of the runs say."""

from __future__ import annotations

import json
import math
import shutil
import types
from pathlib import Path
from typing import Any

import pytest

from saddlescape.cli.app import run as saddlescape

SCRIPT = "saddle"


def point(epoch: int, loss: float, low: float, label: int = 9) -> dict[str, Any]:
    return {
        "epoch": epoch, "label": label, "class": str(label), "group": "tail", "loss": loss, "lambda_min": low,
        "lambda_max": 10.0, "nonconvexity": -low / 10.0, "converged": True,
    }  # fmt: skip


def test_equal_epoch_and_equal_loss_are_told_apart(script: types.ModuleType) -> None:
    """SAM here is deeper at each epoch only because it fits more slowly: at equal loss there is no difference."""
    plain = [point(epoch, loss, -8 * loss) for epoch, loss in ((1, 4.0), (2, 2.0), (3, 1.0))]
    sam = [point(epoch, loss, -8 * loss) for epoch, loss in ((1, 8.0), (2, 4.0), (3, 2.0))]
    epoch, loss = script.equal_epoch(plain, sam)["tail"], script.equal_loss(plain, sam)["tail"]
    assert epoch["pairs"] == 3 and epoch["lambda_min"] == pytest.approx(2)
    assert loss["pairs"] == 2 and loss["lambda_min"] == pytest.approx(1)  # nothing of SGD's is near a loss of 8
    assert script.follows(plain + sam) == {"points": 6, "spearman": pytest.approx(1)}


def test_a_ratio_leaves_out_what_has_no_logarithm(script: types.ModuleType) -> None:
    assert script.ratio([(-1.0, -4.0), (-1.0, 2.0), (0.0, 1.0), (2.0, 2.0)]) == pytest.approx(2)
    assert script.ratio([(-1.0, 1.0)]) is None


@pytest.mark.slow
def test_two_runs_by_the_command_line(script: types.ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    runs = [tmp_path / name for name in ("ce+drw", "ce+drw+sam")]
    few = ["--classes", "0", "9", "--samples-per-class", "8"]
    for run in runs:
        train = ["train", "digits", "--method", run.name, "--epochs", "4", "--keep-every", "2", "--out", str(run)]
        assert saddlescape(train) == 0
        assert saddlescape(["curvature", str(run), *few, "--lanczos-steps", "8"]) == 0
    out = tmp_path / "saddle.json"
    argv = [*map(str, runs), "--out", str(out), "--image", str(tmp_path / "saddle.png")]
    assert script.main(argv) == 2  # one line that says what to run
    assert "--over-training" in capsys.readouterr().err
    for run in runs:
        assert saddlescape(["curvature", str(run), "--over-training", *few]) == 0
    assert script.main(argv) == 0
    assert "equal class loss" in capsys.readouterr().out
    content = json.loads(out.read_text())
    final = [json.loads((run / "curvature.json").read_text())["classes"] for run in runs]
    for part, rows in zip(content["runs"].values(), final, strict=True):
        assert [row["lambda_min"] for row in part["final"]] == [row["lambda_min"] for row in rows]
    tails = [next(row for row in rows if row["label"] == 9) for rows in final]
    told = content["verdict"]["at_the_end"]["tail"]
    assert told["lambda_max"] == pytest.approx(tails[1]["lambda_max"] / tails[0]["lambda_max"])
    courses = [[json.loads(line) for line in (run / "curvature-course.jsonl").read_text().splitlines()] for run in runs]
    heads = [{row["epoch"]: row["lambda_max"] for row in rows if row.get("label") == 0} for rows in courses]
    logs = [math.log(heads[1][epoch] / heads[0][epoch]) for epoch in heads[0]]
    assert content["verdict"]["equal_epoch"]["head"]["lambda_max"] == pytest.approx(math.exp(sum(logs) / len(logs)))
    assert (tmp_path / "saddle.png").stat().st_size > 10_000
    shutil.rmtree(runs[0])
    assert script.main(argv) == 2
