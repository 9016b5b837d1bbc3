"""The terms of our recipe: each is a recipe that resolves, and no run sees the test set."""

from __future__ import annotations

import json
import types
from pathlib import Path

from saddlescape.data import load
from saddlescape.methods.recipe import Facts
from saddlescape.methods.resolve import resolve
from saddlescape.records.files import read_result

SCRIPT = "recipe_terms"


def test_every_term_changes_the_recipe_and_no_two_alike(script: types.ModuleType) -> None:
    counts = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    facts = Facts(dataset="cifar10", class_counts=counts, image_size=32, augment="crop-flip")
    found = [
        resolve("ours", facts, budget=40, settings=script.settings_of(term, 40)).stages
        for term in script.TERMS
        if term not in script.SAME
    ]
    assert all(one not in found[:number] for number, one in enumerate(found))


def test_development_images_take_the_place_of_the_test_set(script: types.ModuleType, tmp_path: Path) -> None:
    out = tmp_path / "terms.json"
    argv = ["--data", "digits", "--imbalance", "20", "--budget", "2", "--seeds", "0", "1", "--terms", "ours",
            "batch 32", "--runs", str(tmp_path / "runs"), "--out", str(out)]  # fmt: skip
    assert script.main(argv) == 0
    first, second = json.loads(out.read_text())["rows"]
    found = [read_result(tmp_path / "runs" / f"ours-seed{seed}") for seed in (0, 1)]
    assert first["development"]["acc"]["mean"] == sum(one["accuracy"] for one in found if one) / 2
    assert second["set"] == ["train.batch_size=32"]
    data = load("digits", imbalance=20, extra=True)
    assert found[0] and found[0]["class_counts"] == data.class_counts and "val_accuracy" not in found[0]
    assert data.val is not None and (found[0]["accuracy"] / 100 * len(data.val)) % 1 < 1e-6
    assert "| batch 32 |" in out.with_suffix(".md").read_text() and str(tmp_path) not in out.read_text()
