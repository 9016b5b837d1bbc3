"""Figures for papers: all three formats, real, the same every time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from saddlescape.errors import InputError, MissingExtraError
from saddlescape.report.matplotlib_figure import write_figures

Make = Callable[..., Path]


def test_each_figure_in_each_format(make: Make, tmp_path: Path) -> None:
    run = make(tmp_path / "run", classes=["<b>$x$</b>", "../../up", "dog", "owl"], parts="result")
    files = write_figures([run], tmp_path / "figures")
    names = {file.stem for file in files}
    assert names == {"groups", "classes", "learning"}
    assert {file.suffix for file in files} == {".pdf", ".svg", ".png"}
    assert len(files) == 3 * len(names)
    assert all(file.parent == tmp_path / "figures" for file in files)
    for file in files:
        start = file.read_bytes()[:200]
        if file.suffix == ".pdf":
            assert start.startswith(b"%PDF")
        elif file.suffix == ".svg":
            assert b"<?xml" in start
        else:
            assert min(Image.open(file).size) > 200
    svg = (tmp_path / "figures" / "classes.svg").read_text(encoding="utf-8")
    assert "&lt;b&gt;$x$" in svg  # text, neither markup nor mathematics
    assert "Training images" in svg
    again = write_figures([run], tmp_path / "again")
    for one, other in zip(files, again, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_a_folder_that_cannot_be_made(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"cannot write .*choose another --figures"):
        write_figures([make(tmp_path / "run", parts="result")], tmp_path / "file")


def test_without_matplotlib(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"saddlescape\[report\]"):
        write_figures([make(tmp_path / "run", parts="result")], tmp_path / "figures")
