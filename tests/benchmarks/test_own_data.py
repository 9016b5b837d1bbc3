"""The study of the default: sets are written once, a row is what the runs say, and the default follows its table."""

from __future__ import annotations

import json
import types
from pathlib import Path

import numpy as np
import pytest

from saddlescape.methods.own_data import default_method
from saddlescape.methods.recipe import Facts
from saddlescape.records.files import read_result

SCRIPT = "own_data"
RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "own_data.json"


def test_a_row_a_method(script: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = script.Small("digits", 2, 3, 60, 6, choice=True)
    monkeypatch.setattr(script, "SETS", {"tiny": tiny})
    out = tmp_path / "own.json"
    argv = ["--seeds", "0", "1", "--images", "400", "--methods", "ce", "plda", "--runs", str(tmp_path)]
    argv += ["--out", str(out)]
    assert script.main(argv) == 0
    content = json.loads(out.read_text())
    assert [row["method"] for row in content["rows"]][2:] == ["ce", "plda"]
    folders = [tmp_path / "tiny" / f"seed{seed}" for seed in (0, 1)]
    for row in content["rows"][2:]:
        found = [read_result(folder / "smallcnn-400" / row["method"]) for folder in folders]
        assert [run["per_class"] for run in row["runs"]] == [one["per_class"] for one in found if one is not None]
        assert row["balanced"] == pytest.approx(np.mean([one["balanced_accuracy"] for one in found if one is not None]))
    assert content["rows"][2]["worst_over_ce"] == 1.0
    names = [{path.name for path in folder.rglob("images/train/**/*.png")} for folder in folders]
    assert len(names[0]) == len(names[1]) == 60 + 24 + 10 and names[0] != names[1]
    assert out.with_suffix(".md").read_text().startswith("| method | tiny (choice) |")
    before = (folders[0] / "smallcnn-400" / "ce" / "result.json").stat().st_mtime_ns
    assert script.main(argv) == 0 and before == (folders[0] / "smallcnn-400" / "ce" / "result.json").stat().st_mtime_ns


def test_the_default_is_what_the_study_says() -> None:
    """Best mean over the sets of the choice, of the methods that keep half of every large class."""
    rows = [row for row in json.loads(RESULT.read_text())["rows"] if not row["set"].endswith("features")]
    chosen = [row for row in rows if row["choice"]]
    means = {
        method: np.mean([row["balanced"] for row in chosen if row["method"] == method])
        for method in {row["method"] for row in rows if "balanced" not in row["method"]}
        if min(row["worst_over_ce"] for row in chosen if row["method"] == method) >= 0.5
    }
    facts = Facts(dataset="own", class_counts=(300, 20), image_size=32, augment="crop-flip")
    assert default_method(facts)[0] == max(means, key=means.__getitem__)
