"""The page of benchmarks says what the committed results say, copes with what is absent, and never stops the build."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
ROWS = [
    {"name": "step, over loop", "value": 1.25, "unit": "times", "quartiles": [1.2, 1.3], "floor": 1.4, "goal": 1.8},
    {"name": "step, over | <loop>", "value": None, "unit": "times"},
    {"name": "share of the bound, step", "value": 0.5, "unit": "share"},
    {"name": "step's growth with images, ours", "value": 0.9871, "unit": "exponent"},
    {"name": "memory for a further image, ours", "value": 123456.7, "unit": "bytes", "range": [1.0, 2.0]},
]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_page", ROOT / "tools" / "benchmark_page.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    (tmp_path / "step.py").write_text(
        '"""How fast?\n\n    python benchmarks/step.py --quick\n\nMore.\n"""\nif __name__ == "__main__":\n    pass\n'
    )
    (tmp_path / "common.py").write_text('"""Shared."""\n')
    return tmp_path


def put(folder: Path, stem: str, result: Any) -> None:
    (folder / "results" / f"{stem}.json").write_text(json.dumps(result))


def test_every_committed_result_and_every_figure_of_it_is_on_the_page(tool: ModuleType) -> None:
    page = tool.page()
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        assert page.count(f"### `{path.name}`") == 1, path.name
        result = json.loads(path.read_text())
        rows = result.get("rows", []) if isinstance(result, dict) else []
        if rows and "name" not in rows[0]:  # its table lies beside it
            assert path.with_suffix(".md").read_text().strip() in page, path.name
            continue
        for row in (one for each in rows for one in tool.figures(each)):
            assert f"| {tool._cell(row['name'])} | {tool.number(row['value'])} |" in page, row["name"]
    for name in ("train_step", "curvature", "loader", "sam_family", "first_table"):
        assert page.count(f"\n## `{name}.py`\n") == 1
        assert f"python benchmarks/{name}.py" in page


def test_a_benchmark_without_results_says_so(tool: ModuleType, folder: Path) -> None:
    page = tool.page(folder)
    assert "| `step.py` | How fast? | none are committed yet |" in page
    assert "No results are committed yet." in page and "python benchmarks/step.py --quick" in page
    assert "common" not in page


def test_figures_are_told_by_kind_with_spread_floor_and_goal(tool: ModuleType, folder: Path) -> None:
    taken = {"device": "a CPU", "threads": 2, "torch": "2.13.0", "commit": "0123456789abcdef", "date": "2026-11-25T10",
             "load_average": [3.0, 1, 1], "command": "python benchmarks/step.py"}  # fmt: skip
    put(folder, "step-cpu", {"benchmark": "step", "environment": taken, "rows": ROWS, "missing": ["somebody"]})
    page = tool.page(folder)
    assert "| step, over loop | 1.25 | 1.2 to 1.3 | times | 1.4 | 1.8 |" in page
    assert "| step, over \\| &lt;loop&gt; | - | - | times | - | - |" in page
    places = [page.index(f"**{title}**") for title in tool.KINDS]
    assert places == sorted(places)
    for title, text in (
        ("Beside the roofline", "| share of the bound, step | 0.5 |"),
        ("Growth", "| step's growth with images, ours | 0.987 | - | exponent |"),
        ("Other figures", "| memory for a further image, ours | 123,457 | 1 to 2 | bytes |"),
    ):
        assert text in page[page.index(f"**{title}**") :].split("\n**")[0]
    assert "On a CPU, 2 threads." in page and "Load average at the start 3: a busy machine." in page
    assert "commit 0123456789," in page and "Peers that were not installed: somebody." in page


def test_several_figures_in_one_row_are_a_row_each(tool: ModuleType, folder: Path) -> None:
    ratio = {"value": 1.19, "quartiles": [1.1, 1.3]}
    row = {"name": "processes 2", "runs_per_hour": 440.2, "over_serial": ratio, "share_of_roofline": 0.75}
    put(folder, "step-cpu", {"benchmark": "step", "rows": [row]})
    page = tool.page(folder)
    assert "| processes 2 over serial | 1.19 | 1.1 to 1.3 | times |" in page and "<svg" in page
    assert "| runs per hour, processes 2 | 440 | - |" in page
    assert page.index("**Beside the roofline**") < page.index("| share of roofline, processes 2 | 0.75 |")


def test_the_picture_has_a_bar_for_every_ratio(tool: ModuleType) -> None:
    lines = tool.bars("a < b", [*ROWS[:2], {"name": "slower", "value": 0.5}])
    picture = ElementTree.fromstring("\n".join(lines[1:-1]))
    assert picture.attrib["aria-label"] == "a < b"
    bars = [rect.attrib for rect in picture.iter("rect")]
    assert len(bars) == 2
    one = float(re.search(r"M([\d.]+) 0V", lines[-3])[1])  # type: ignore[index]
    faster, slower = bars
    assert float(faster["x"]) == pytest.approx(one) and float(slower["x"]) + float(slower["width"]) == pytest.approx(
        one, abs=0.11
    )
    assert sum(title.text == "goal" for title in picture.iter("title")) == 1


def test_results_of_other_forms_are_shown_as_far_as_they_are_understood(tool: ModuleType, folder: Path) -> None:
    run = {"method": "ce_a", "seed": 0, "epochs": 2, "accuracy": 70.25, "head": 1.0, "mid": None, "tail": 2.0}
    put(folder, "runs", {"what": "Two epochs", "results": [run], "command": "saddlescape train"})
    put(folder, "table", {"table": {}, "commands": ["python benchmarks/step.py x"]})
    (folder / "results" / "table.md").write_text("| a |\n| --- |\n| 1 |\n")
    put(folder, "odd", [1, 2])
    put(folder, "step_odd", {"whatever": 1})
    page = tool.page(folder)
    assert "Two epochs." in page and "| ce\\_a | 0 | 2 | 70.2 | 1 | - | 2 |" in page
    owned, others = page.split("## Further results")
    assert "### `table.json`" in owned and "| 1 |" in owned and "### `step_odd.json`" in owned
    assert "### `odd.json`" in others and "A file of another form" in others
