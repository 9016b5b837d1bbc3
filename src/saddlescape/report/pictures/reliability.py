"""Calibration: how sure the answers are, beside how often they are right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saddlescape.report.calibration import Calibration, calibration
from saddlescape.report.panels import Panel, Picture, Plate, Series, Value
from saddlescape.report.read import RunData
from saddlescape.report.text import percent


def reliability(runs: Sequence[RunData]) -> Plate | None:
    """A reliability diagram a run, of all images and by group."""
    known = [run for run in runs if run.predictions]
    if not known:
        return None
    caption = (
        "Images in bins of how sure the answer is; a bar tells how many of a bin are right. Below the dotted line the "
        "network is surer than it is right. ECE, the expected calibration error, is the mean gap."
    )
    return Plate("reliability", "Calibration", caption, [(run.name, _diagram(run)) for run in known], "run")


def _diagram(run: RunData) -> Picture:
    assert run.predictions is not None
    whole = calibration(run.predictions)
    lines = [_diagonal()]
    told = []
    for group, members in (run.groups or {}).items():
        part = calibration(run.predictions, np.isin(run.predictions.labels, members))
        if part.images.sum():
            x = [100 * float(v) for v, n in zip(part.confidence, part.images, strict=True) if n]
            y: list[Value] = [100 * float(v) for v, n in zip(part.accuracy, part.images, strict=True) if n]
            words = [f"{group}: {percent(b)} right of {n} images said with {percent(a)}"
                     for a, b, n in zip(x, y, part.images[part.images > 0], strict=True)]  # fmt: skip
            lines.append(Series(group, x, y, "line", group, markers=True, size=6, words=words))
            told.append(f"{group} {percent(100 * part.error)}")
    title = f"All images: ECE {percent(100 * whole.error)}"
    axes = {"x_range": (0.0, 100.0), "x_title": "said with confidence, %", "percent": True}
    share = 100 * whole.images / max(whole.images.sum(), 1)
    panels = [
        Panel(title, [_bars(whole), _diagonal()], y_range=(0, 103), **axes),  # type: ignore[arg-type]
        Panel("By group", lines, y_range=(0, 103), **axes),  # type: ignore[arg-type]
        Panel("Share of images", [_share(whole, share)], **axes),  # type: ignore[arg-type]
    ]
    if len(lines) == 1:
        del panels[1]
    text = f"Expected calibration error {percent(100 * whole.error)} over all images"
    return Picture(panels, text + (f"; {', '.join(told)}." if told else "."), columns=len(panels), height=250)


def _middles(found: Calibration) -> list[float]:
    return [float(50 * (a + b)) for a, b in zip(found.edges[:-1], found.edges[1:], strict=True)]


def _bars(found: Calibration) -> Series:
    y: list[Value] = [100 * float(v) if n else None for v, n in zip(found.accuracy, found.images, strict=True)]
    words = [f"{n} images, said with {percent(100 * a) if n else '-'}, right {percent(100 * b) if n else '-'}"
             for a, b, n in zip(found.confidence, found.accuracy, found.images, strict=True)]  # fmt: skip
    return Series("right", _middles(found), y, "bars", "run0", words=words, bar_width=100 / len(y) * 0.92, legend=False)


def _share(found: Calibration, share: np.ndarray) -> Series:
    words = [f"{n} images" for n in found.images]
    return Series("images", _middles(found), [float(v) for v in share], "bars", "muted", words=words,
                  bar_width=100 / len(share) * 0.92, legend=False)  # fmt: skip


def _diagonal() -> Series:
    return Series("as sure as right", [0.0, 100.0], [0.0, 100.0], "line", "muted", "dot", width=1.5)
