"""Searches: chosen on the validation split, a function of what was tried, resumable, one line for what cannot be."""

from __future__ import annotations

import builtins
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from saddlescape.errors import InputError, MissingExtraError
from saddlescape.records import files
from saddlescape.runs.config import from_toml
from saddlescape.runs.grid import plan_grid
from saddlescape.runs.request import Request
from saddlescape.runs.search_space import Range, parse_range
from saddlescape.runs.tune import BEST, TRIALS, TUNED, tune, tuned_settings

RATE = ["train.lr=0.001..0.5:log"]


def request(**changes: Any) -> Request:
    usual: dict[str, Any] = {"data": "digits", "method": "ce", "epochs": 2, "val": 0.2, "precision": "float32"}
    return Request(**(usual | changes))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("searched") / "ce"
    tune(request(), folder, trials=4, searches=RATE)
    return folder


def test_the_best_trial_is_the_best_on_the_validation_split(searched: Path) -> None:
    rows = files.read_rows(searched / TRIALS)
    assert [row["trial"] for row in rows] == [0, 1, 2, 3]
    assert rows[0]["settings"] == []
    for row in rows[1:]:
        assert 0.001 <= row["values"]["train.lr"] <= 0.5
    for row in rows:
        result = json.loads((searched / f"trial-{row['trial']:03d}" / "result.json").read_text())
        assert row["value"] == result["val_balanced_accuracy"]
    tuned = json.loads((searched / TUNED).read_text())
    best = max(rows, key=lambda row: row["value"])
    assert (tuned["best"], tuned["best_value"]) == (best["trial"], best["value"])
    assert "accuracy" not in tuned  # nothing of the test set


def test_no_trial_scores_the_test_set(searched: Path) -> None:
    for path in searched.glob("trial-*/result.json"):
        result = json.loads(path.read_text())
        assert result["accuracy"] == result["val_accuracy"]


def test_the_best_settings_are_a_recipe_for_all_images(searched: Path) -> None:
    tuned = json.loads((searched / TUNED).read_text())
    config = from_toml((searched / BEST).read_text())
    assert config.data.val == 0
    wanted = dict(setting.split("=") for setting in tuned["settings"]).get("train.lr", config.stages[0].lr)
    assert config.stages[0].lr == float(wanted)


def test_a_search_cut_off_anywhere_ends_the_same(searched: Path, tmp_path: Path) -> None:
    folder = tmp_path / "ce"
    tune(request(), folder, trials=2, searches=RATE)
    shutil.rmtree(folder / "trial-001")  # killed after training, before its row was written
    files.keep_rows(folder / TRIALS, files.read_rows(folder / TRIALS)[:1])
    tune(request(), folder, trials=4, searches=RATE)
    assert files.read_rows(folder / TRIALS) == files.read_rows(searched / TRIALS)
    assert (folder / TUNED).read_bytes() == (searched / TUNED).read_bytes()


def test_another_search_in_the_same_folder_is_refused(searched: Path) -> None:
    before = (searched / TRIALS).read_bytes()
    with pytest.raises(InputError, match="other settings or ranges"):
        tune(request(), searched, trials=5, searches=["train.lr=0.01..0.1"])
    with pytest.raises(InputError, match="other settings or ranges"):
        tune(request(epochs=3), searched, trials=5, searches=RATE)
    assert (searched / TRIALS).read_bytes() == before


def test_a_setting_that_diverges_is_a_bad_setting_and_not_the_end(tmp_path: Path) -> None:
    tuned = tune(
        request(settings=("train.augment=none",)), tmp_path / "ce", trials=2, searches=["train.lr=1e29..1e30:log"]
    )
    assert tuned["trials"][1]["value"] is None
    assert "finite" in files.read_rows(tmp_path / "ce" / TRIALS)[1]["failed"]
    assert tuned["best"] == 0


def test_a_grid_is_trained_with_tuned_settings(searched: Path) -> None:
    (config,) = plan_grid(request(val=0.0), ["ce"], [3], tuned=searched)
    wanted = tuned_settings(searched, "ce")
    assert [f"train.lr={config.stages[0].lr:.6g}"] == wanted or not wanted
    (through_parent,) = plan_grid(request(val=0.0), ["ce"], [3], tuned=searched.parent)
    assert through_parent == config
    with pytest.raises(InputError, match=r"no finished search for ce\+sam"):
        plan_grid(request(val=0.0), ["ce+sam"], [3], tuned=searched)


def test_default_ranges_follow_from_the_method(tmp_path: Path) -> None:
    tuned = tune(request(method="vs+sam", epochs=1), tmp_path / "vs", trials=2)
    assert set(tuned["trials"][1]["values"]) == {
        "train.weight_decay", "train.rho", "train.loss_options.gamma", "train.loss_options.tau",
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "train.lr", "train.lr=1", "train.lr=2..1", "train.lr=-1..1:log", "lr=a..b", "x=1..inf"]
)
def test_a_range_that_is_none_is_one_line(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_range(text)
    assert "\n" not in str(caught.value)
    assert "--search" in str(caught.value)


def test_ranges_are_read_as_written() -> None:
    assert parse_range("train.lr=0.02..0.5:log") == Range("train.lr", 0.02, 0.5, True)
    assert parse_range(" train.loss_options.tau=-1e-1..2 ") == Range("train.loss_options.tau", -0.1, 2.0, False)


def test_what_cannot_be_searched_is_said_before_anything_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    with pytest.raises(InputError, match="needs a validation split"):
        tune(request(val=0.0), folder, trials=2)
    with pytest.raises(InputError, match="at least 1"):
        tune(request(), folder, trials=0)
    with pytest.raises(InputError, match="twice"):
        tune(request(), folder, trials=2, searches=RATE * 2)
    assert not folder.exists()


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "optuna":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"saddlescape\[tune\]"):
        tune(request(), tmp_path / "new", trials=2)
