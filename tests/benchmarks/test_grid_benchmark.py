"""The benchmark of grids: figures from known times, a roofline of the right threads, and a whole JSON."""

from __future__ import annotations

import json
import types
from pathlib import Path

import pytest

SCRIPT = "grid"


def test_figures_of_known_times(script: types.ModuleType) -> None:
    contenders = script.engines([1, 2, 4], 4, with_ray=False, on_gpu=False)
    assert {name: threads for name, (_, threads) in contenders.items()} == {
        "serial": 4, "processes 1": 4, "processes 2": 2, "processes 4": 1,
    }  # fmt: skip
    seconds = {"serial": 80.0, "processes 1": 100.0, "processes 2": 60.0, "processes 4": 36.0}
    timings = {name: script.Timing((value,)) for name, value in seconds.items()}
    alone = {4: script.Timing((80.0,)), 2: script.Timing((100.0,)), 1: script.Timing((120.0,))}
    starts = {name: [1.0, 3.0, 2.0] for name in seconds}
    table = {row["name"].split(":")[0]: row for row in script.rows(timings, contenders, 8, alone, starts)}
    assert table["serial"]["runs_per_hour"] == 360
    assert table["serial"]["start_s"] == 2
    assert table["serial"]["share_of_roofline"] == 1
    assert table["processes 2"]["roofline_runs_per_hour"] == pytest.approx(2 * 8 * 3600 / 100)
    assert table["processes 4"]["value"] == pytest.approx(80 / 36)
    assert table["processes 4"]["share_of_roofline"] == pytest.approx((3600 * 8 / 36) / (4 * 3600 * 8 / 120))
    few = script.rows(timings, contenders, 3, alone, starts)[-1]
    assert few["roofline_runs_per_hour"] == pytest.approx(3 * 3600 * 3 / 120)  # three runs fill no four places
    doubling = {f"processes {n}": script.Timing((64.0 / n,)) for n in (1, 2, 4)}
    assert script.growth(doubling, "processes") == pytest.approx(1)
    assert script.growth(doubling, "ray") is None


def test_unequal_results_are_not_called_the_same(script: types.ModuleType) -> None:
    contenders = {"serial": (None, 2), "serial, 1 threads": (None, 1), "processes 2": (None, 1)}
    reached = {"serial": [10.0], "serial, 1 threads": [11.0], "processes 2": [11.0]}
    assert script.same(reached, contenders)
    assert not script.same(reached | {"processes 2": [11.1]}, contenders)


@pytest.mark.slow
def test_the_json_is_whole(script: types.ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "grid.json"
    argv = ["--seeds", "1", "--epochs", "1", "--jobs", "2", "--rounds", "1", "--threads", "2", "--device", "cpu"]
    assert script.main([*argv, "--no-ray", "--out", str(out)]) == 0
    result = json.loads(out.read_text())
    assert [row["name"].split(":")[0] for row in result["rows"]] == ["serial", "processes 2"]
    assert set(result["timings"]) == {"serial", "processes 2", "serial, 1 threads"}
    assert result["same_accuracies"] is True
    for row in result["rows"]:
        assert 0 < row["start_s"] < row["ours"]["median_s"]
        assert row["runs_per_hour"] == pytest.approx(2 * 3600 / row["ours"]["median_s"])
