"""The terms of our recipe: each is a recipe that resolves, and what is told is what the runs say."""

from __future__ import annotations

import json
import types
from pathlib import Path

import pytest

from saddlescape.methods.recipe import Facts
from saddlescape.methods.resolve import resolve
from saddlescape.records.files import read_result, read_rows

SCRIPT = "recipe_terms"


def test_every_term_changes_the_recipe_and_no_two_alike(script: types.ModuleType) -> None:
    facts = Facts(
        dataset="digits", class_counts=[120, 77, 50, 32, 21, 13, 8, 5, 3, 2], image_size=8, augment="crop",
        device_type="cpu",
    )  # fmt: skip
    found = [
        resolve(method, facts, settings=[each.format(half=150) for each in settings]).stages
        for term, (method, settings) in script.TERMS.items()
        if term != script.FIRST_STAGE
    ]
    assert all(one not in found[:number] for number, one in enumerate(found))


def test_a_row_a_term(script: types.ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, term = tmp_path / "terms.json", "SAM from the middle on"
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
    assert not content["development"] and str(tmp_path) not in out.read_text()
    assert f"| {term} | `ours`" in out.with_suffix(".md").read_text()
    assert script.main([*argv[:5], "--terms", script.FIRST_STAGE, *argv[8:]]) == 0
    (first,) = json.loads(out.read_text())["rows"]
    rows = [read_rows(tmp_path / f"ours-seed{seed}" / "metrics.jsonl") for seed in (0, 1)]
    assert [[row["stage"] for row in each] for each in rows] == [[0, 0, 1]] * 2
    assert [one["tail"] for one in first["runs"]] == [each[1]["test"]["tail"] for each in rows]
    assert f"| {script.FIRST_STAGE} | `ours`" in out.with_suffix(".md").read_text()


def test_what_is_chosen_on_development_images_never_sees_the_test_s(
    script: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saddlescape.data import load
    from saddlescape.data.sources import registry

    monkeypatch.setattr(registry, "SOURCES", dict(registry.SOURCES))  # put back after the test
    whole = load("digits")
    known = {bytes(image.numpy().tobytes()) for image in whole.train.images}
    out = tmp_path / "terms.json"
    argv = ["--development", "--seeds", "0", "1", "--epochs", "1", "--terms", "ours", "--out", str(out)]
    assert script.main([*argv, "--runs", str(tmp_path)]) == 0
    split = load("digits")
    train, test = ([image.numpy().tobytes() for image in part.images] for part in (split.train, split.test))
    assert (len(train), len(test)) == (800, 400)
    assert {*train, *test} == known and not {*train} & {*test}  # digits has no image twice
    assert split.test.labels.bincount().tolist() == [40] * 10
    found = [read_result(tmp_path / f"ours-seed{seed}") for seed in (0, 1)]
    drawn = [(one["class_counts"], one["draw_hash"]) for one in found if one is not None]
    assert drawn[0][0] == drawn[1][0] and drawn[0][0][-1] == 2 and drawn[0][1] != drawn[1][1]
    assert json.loads(out.read_text())["development"]
    with pytest.raises(SystemExit):
        script.main([*argv, "--data", "cifar10", "--runs", str(tmp_path)])
