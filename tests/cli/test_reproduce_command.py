"""``reproduce`` and ``demo``: a grid of runs as one command, and its table."""

from __future__ import annotations

import json
import shutil
import statistics
import tomllib
from pathlib import Path

import pytest

GRID = ("reproduce", "digits-lt", "--methods", "ce+drw,ce+drw+sam", "--epochs", 1, "--device", "cpu", "--out", "grid")
ROWS = ("ce+drw", "ce+drw+sam")


def accuracies(method: str) -> list[float]:
    return [json.loads(Path("grid", f"{method}-seed{seed}", "result.json").read_text())["accuracy"] for seed in (0, 1)]


def test_two_rows_two_seeds_and_again(cli):
    outcome = cli(*GRID, "--seeds", 0, 1)
    assert outcome.code == 0, outcome.err
    table = json.loads(Path("grid/table.json").read_text())
    assert [row["method"] for row in table["rows"]] == list(ROWS)
    markdown = Path("grid/table.md").read_text()
    for row in table["rows"]:
        values = accuracies(row["method"])
        assert row["seeds"] == [0, 1]
        mean, spread = statistics.mean(values), statistics.stdev(values)
        assert json.dumps(row).find(json.dumps(mean)[:8]) >= 0
        assert f"{mean:.1f}" in markdown
        assert f"{mean:.1f}" in outcome.out
        assert f"{spread:.1f}" in outcome.out
    # What is there is not trained again; what is missing is.
    kept = {path: path.stat().st_mtime_ns for path in Path("grid").rglob("result.json")}
    gone = Path("grid/ce+drw+sam-seed1")
    shutil.rmtree(gone)
    again = cli(*GRID, "--seeds", 0, 1)
    assert again.code == 0, again.err
    assert json.loads(Path("grid/table.json").read_text())["rows"] == table["rows"]
    assert sum("is finished" in line for line in again.err.splitlines()) == 3
    for path, when in kept.items():
        assert (path.stat().st_mtime_ns == when) == (gone not in path.parents)


def test_a_dry_run_prints_configurations_and_trains_nothing(cli):
    outcome = cli(*GRID, "--seeds", 0, 1, "--rho", 0.3, "--dry-run")
    assert outcome.code == 0, outcome.err
    assert not Path("grid").exists()
    parts = [tomllib.loads(part.split("\n", 1)[1]) for part in outcome.out.split("# ce")[1:]]
    assert [(part["method"], part["seed"]) for part in parts] == [(row, seed) for row in ROWS for seed in (0, 1)]
    # One radius for the rows that have one.
    assert [part["stages"][0]["rho"] for part in parts] == [[], [], [0.3], [0.3]]


def test_one_network_for_every_row(cli):
    outcome = cli(*GRID, "--model", "resnet20")
    assert outcome.code == 0, outcome.err
    for row in ROWS:
        assert json.loads(Path("grid", f"{row}-seed0", "result.json").read_text())["model"] == "resnet20"
    assert "resnet20, 1 epoch." in Path("grid/table.md").read_text()
    assert "Changed from the published recipe: model resnet20 (smallcnn)." in Path("grid/table.md").read_text()


def test_a_row_that_fails_is_named_under_the_table_of_the_others(cli):
    """A learning rate with which one row diverges does not lose the other."""
    for row, settings in zip(ROWS, ([], ["train.lr=1e30"]), strict=True):
        Path("tuned", row).mkdir(parents=True)
        Path("tuned", row, "tuned.json").write_text(json.dumps({"method": row, "settings": settings}))
    outcome = cli(*GRID, "--tuned", "tuned")
    assert outcome.complaint.startswith("saddlescape: 1 of 2 runs failed (ce+drw+sam seed 0); ")
    assert "finite" in outcome.complaint
    table = json.loads(Path("grid/table.json").read_text())
    assert [row["method"] for row in table["rows"]] == ["ce+drw"]
    assert [(one["method"], one["seed"]) for one in table["failed"]] == [("ce+drw+sam", 0)]
    assert "Failed, and left out above: ce+drw+sam seed 0." in Path("grid/table.md").read_text()
    assert "ce+drw" in outcome.out


def test_other_settings_are_found_before_anything_is_trained(cli):
    assert cli(*GRID[:3], "ce+drw", *GRID[4:]).code == 0
    other = cli(*GRID[:3], "ce,ce+drw", *GRID[4:], "--weight-decay", 0.1)
    assert "begun with other settings" in other.complaint
    assert not Path("grid/ce-seed0").exists()


@pytest.mark.slow
def test_the_demo(cli):
    outcome = cli("demo", "--epochs", 2, "--seeds", 0, "--out", "demo")
    assert outcome.code == 0, outcome.err
    assert "Digits-LT" in outcome.out
    for row in ROWS:
        assert json.loads(Path("demo", f"{row}-seed0", "result.json").read_text())["epochs"] == 2
        assert row in outcome.out
    assert Path("demo/table.md").is_file()
