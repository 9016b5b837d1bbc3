"""Accuracy over work: what runs reached and what they cost, as they say themselves."""

from __future__ import annotations

import json
import types
from pathlib import Path

import pytest

from saddlescape.cli.app import run
from saddlescape.records.files import read_result

SCRIPT = "accuracy_per_work"


def test_rows_over_seeds_and_an_image(script: types.ModuleType, tmp_path: Path) -> None:
    command = ["train", "digits", "--eval-every", "99"]
    runs = {"ce-0": ["--method", "ce"], "ce-1": ["--method", "ce", "--seed", "1"], "sam": ["--method", "ce+sam"]}
    for name, more in runs.items():
        assert run([*command, *more, "--budget", "4", "--out", str(tmp_path / name)]) == 0
    (tmp_path / "none").mkdir()
    out, image = tmp_path / "out.json", tmp_path / "out.png"
    argv = [*(str(tmp_path / name) for name in (*runs, "none")), "--out", str(out), "--image", str(image)]
    assert script.main(argv) == 0
    content = json.loads(out.read_text())
    assert [(row["method"], row["work"], row["seeds"]) for row in content["rows"]] == [
        ("ce", 4, [0, 1]), ("ce+sam", 4, [0]),
    ]  # fmt: skip
    results = [read_result(tmp_path / name) for name in runs]
    assert [one["stage_epochs"] for one in content["runs"]] == [[4], [4], [2]]
    assert {(one["work"], one["test_openings"]) for one in [*content["runs"], *results]} == {(4.0, 1)}
    assert content["rows"][0]["last"]["acc"]["mean"] == pytest.approx(
        sum(one["accuracy"] for one in results[:2] if one) / 2
    )
    assert image.read_bytes()[:4] == b"\x89PNG" and "| `ce+sam` | 1 |" in out.with_suffix(".md").read_text()
