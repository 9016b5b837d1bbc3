"""The terms of our recipe: each is a recipe that resolves, and what is told is what the runs say."""

from __future__ import annotations

import json
import types
from pathlib import Path

import pytest

from saddlescape.methods.recipe import Facts
from saddlescape.methods.resolve import resolve
from saddlescape.runs.format import read_result

SCRIPT = "recipe_terms"


def test_every_term_changes_the_recipe_and_no_two_alike(script: types.ModuleType) -> None:
    facts = Facts(
        dataset="digits", class_counts=[120, 77, 50, 32, 21, 13, 8, 5, 3, 2], image_size=8, augment="crop",
        device_type="cpu",
    )  # fmt: skip
    found = [
        resolve(method, facts, settings=[each.format(half=150) for each in settings]).stages
        for method, settings in script.TERMS.values()
    ]
    assert all(one not in found[:number] for number, one in enumerate(found))


def test_a_row_a_term(script: types.ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, term = tmp_path / "terms.json", "with ProCo, SAM from the middle on"
    argv = ["--seeds", "0", "1", "--epochs", "2", "--terms", "ours", term, "--runs", str(tmp_path), "--out", str(out)]
    assert script.main(argv) == 0
    content = json.loads(out.read_text())
    ours, former = content["rows"]
    assert ours["term"] == "ours" and "train.rho_start=1" in former["set"]
    found = [read_result(tmp_path / f"ours-seed{seed}") for seed in (0, 1)]
    accuracies = [one["accuracy"] for one in found if one is not None]
    assert [one["accuracy"] for one in ours["runs"]] == accuracies
    assert ours["accuracy"]["mean"] == pytest.approx(sum(accuracies) / 2)
    assert ours["accuracy"]["std"] == pytest.approx(abs(accuracies[0] - accuracies[1]) / 2**0.5)
    assert f"| {term} | `ours`" in out.with_suffix(".md").read_text()
