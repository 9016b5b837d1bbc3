"""Calibration: the confidence of the predictions, beside how often they are right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from saddlescape.report.calibration import calibration
from saddlescape.report.drawing import Figure, Panel, Panels, Series, Value
from saddlescape.report.read import RunData
from saddlescape.report.text import percent


def reliability(runs: Sequence[RunData]) -> Figure | None:
    """A reliability diagram a run, of all images and by group."""
    variants = [(run.name, _diagram(run)) for run in runs if run.predictions]
    caption = (
        "Images in bins of confidence; a bar shows how many of a bin are right. Below the dotted line the network is "
        "surer than it is right. ECE, the expected calibration error, is the mean gap."
    )
    return Figure("reliability", "Calibration", caption, variants, "run") if variants else None


def _diagram(run: RunData) -> Panels:
    assert run.predictions is not None
    whole = calibration(run.predictions)
    diagonal = Series("as sure as right", [0.0, 100.0], [0.0, 100.0], "line", "muted", "dot", width=1.5)
    lines, words = [], []
    for group, members in (run.groups or {}).items():
        part = calibration(run.predictions, np.isin(run.predictions.labels, members))
        some = part.images > 0
        if some.any():
            x, y = (100 * part.confidence[some]).tolist(), (100 * part.accuracy[some]).tolist()
            said = [f"{group}: {percent(b)} right of {n} images said with {percent(a)}"
                    for a, b, n in zip(x, y, part.images[some], strict=True)]  # fmt: skip
            lines.append(Series(group, x, y, "line", group, markers=True, size=6, words=said))
            words.append(f"{group} {percent(100 * part.error)}")
    said = [f"{n} images, said with {percent(100 * a) if n else '-'}, right {percent(100 * b) if n else '-'}"
            for a, b, n in zip(whole.confidence, whole.accuracy, whole.images, strict=True)]  # fmt: skip
    right: list[Value] = [100 * float(v) if n else None for v, n in zip(whole.accuracy, whole.images, strict=True)]
    middles = (50 * (whole.edges[:-1] + whole.edges[1:])).tolist()
    share = (100 * whole.images / max(whole.images.sum(), 1)).tolist()
    bars: dict[str, Any] = {"kind": "bars", "bar_width": 100 / len(right) * 0.92, "legend": False}
    axes: dict[str, Any] = {"x_range": (0.0, 100.0), "x_title": "said with confidence, %", "percent": True}
    panels = [
        Panel(f"All images: ECE {percent(100 * whole.error)}",
              [Series("right", middles, right, colour="run0", words=said, **bars), diagonal], y_range=(0, 103), **axes),
        *([Panel("By group", [diagonal, *lines], y_range=(0, 103), **axes)] if lines else []),
        Panel("Share of images", [Series("images", middles, share, colour="muted",
                                         words=[f"{n} images" for n in whole.images], **bars)], **axes),
    ]  # fmt: skip
    text = f"Expected calibration error {percent(100 * whole.error)} over all images"
    return Panels(panels, text + (f"; {', '.join(words)}." if words else "."), columns=len(panels), height=250)
