"""The pictures as files for a paper: the same numbers as on the page, drawn by matplotlib as PDF, SVG and PNG."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saddlescape.disk import MARK, whole, writing
from saddlescape.report.figures import heatmap, panels, surface
from saddlescape.report.figures.style import STYLE, figure_class
from saddlescape.report.page import study
from saddlescape.report.panels import Drawing, Heatmap, Plate, Relief
from saddlescape.report.read import read, studies

FORMATS = ("pdf", "svg", "png")
# No date and no program's version, so that the same runs give the same bytes.
METADATA: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None, "Producer": None, "Creator": None},
                                       "svg": {"Date": None, "Creator": None}, "png": {"Software": None}}  # fmt: skip

__all__ = ["draw", "write_figures"]


def write_figures(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Write every figure of the page; returns the files.

    Of figures with a list of runs each is written, of those with a list of classes the one that the page opens with.

    Raises:
        InputError: as ``read``, or a folder that cannot be written.
        MissingExtraError: matplotlib is not installed.
    """
    figure_class()
    from matplotlib import rc_context

    written: list[Path] = []
    found = studies(read(paths))
    with writing(folder, "choose another --figures"):
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.iterdir()):
            (folder / MARK).touch()
    with rc_context(dict(STYLE)):
        for index, runs in enumerate(found):
            key = f"s{index + 1}"
            for section in study(runs, key).sections:
                for plate in section.plates:
                    for name, drawing in _chosen(plate):
                        base = plate.key.removeprefix(f"{key}-") if len(found) == 1 else plate.key
                        written += _save(draw(drawing), folder, base + (f"-{_file(name)}" if name else ""))
    return written


def draw(drawing: Drawing) -> Any:
    """The matplotlib figure of any drawing."""
    if isinstance(drawing, Heatmap):
        return heatmap.draw(drawing)
    return surface.draw(drawing) if isinstance(drawing, Relief) else panels.draw(drawing)


def _chosen(plate: Plate) -> list[tuple[str, Drawing]]:
    if plate.choice == "run" and len(plate.variants) > 1:
        return list(plate.variants)
    name, drawing = plate.variants[plate.start]
    return [(name if plate.choice == "class" else "", drawing)]


def _file(name: str) -> str:
    """A name from data as part of a file's name: letters, digits, + and - alone."""
    return re.sub(r"[^\w+]+", "-", name.replace(" + ", "+")).strip("-")[:60] or "unnamed"


def _save(figure: Any, folder: Path, name: str) -> list[Path]:
    files = [folder / f"{name}.{suffix}" for suffix in FORMATS]
    for file, suffix in zip(files, FORMATS, strict=True):
        with whole(file, "make room or choose another --figures") as temporary:
            figure.savefig(temporary, metadata=METADATA[suffix])
    return files
