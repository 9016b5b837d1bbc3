"""``saddlescape report``: the command a person types. The page itself is tested in ``tests/report``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from saddlescape.cli import report as command
from saddlescape.errors import InputError


def run_at(folder: Path) -> Path:
    """A finished run, as small as one can be."""
    folder.mkdir(parents=True)
    stage = {"name": "train", "epochs": 1}
    (folder / "config.toml").write_text(tomli_w.dumps({"method": "ce", "seed": 0, "stages": [stage], "version": 1}))
    result = {"method": "ce", "dataset": "photos", "seed": 0, "imbalance": None, "model": "smallcnn", "epochs": 1}
    result |= {"accuracy": 60.0, "balanced_accuracy": 60.0, "best_accuracy": 60.0, "best_epoch": 1, "seconds": 1.0}
    result |= {"head": None, "mid": None, "tail": None, "per_class": [80.0, 40.0], "draw_hash": "aa"}
    result |= {"classes": ["cat", "dog"], "class_counts": [20, 5]}
    (folder / "result.json").write_text(json.dumps(result))
    return folder


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(command.console, "print", lambda line: lines.append(str(line)))
    return lines


def test_a_page_and_figures(tmp_path: Path, told: list[str]) -> None:
    run = run_at(tmp_path / "grid" / "ce-seed0")
    command.report(
        tmp_path / "grid", run, out=tmp_path / "out" / "page.html", figures=tmp_path / "figures", title="Cats & dogs"
    )
    page = (tmp_path / "out" / "page.html").read_text(encoding="utf-8")
    assert "Cats &amp; dogs" in page
    assert page.count("<figure") == 2
    assert "page.html" in told[0]
    assert "MB" in told[0]
    assert told[1] == f"-> {tmp_path / 'figures'}: 6 files"
    assert len(list((tmp_path / "figures").glob("[!.]*"))) == 6


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda folder: command.report(out=folder / "x.html"), "give a run folder"),
        (lambda folder: command.report(folder / "nowhere", out=folder / "x.html"), "there is no folder"),
        (lambda folder: command.report(folder, out=folder / "x.html"), "neither a run"),
        (lambda folder: command.report(run_at(folder / "a"), out=folder), "is a folder: give a file"),
        (
            lambda folder: command.report(run_at(folder / "a"), out=run_at(folder / "b") / "config.toml" / "x"),
            "cannot write",
        ),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, told: list[str], call: Callable[[Path], Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        call(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert told == []
