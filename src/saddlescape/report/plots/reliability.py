"""Calibration: the confidence of the predictions, beside how often they are right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saddlescape.report.calibration import calibration
from saddlescape.report.drawing import Figure, Panel, Panels, Series, Value
from saddlescape.report.read import RunData
from saddlescape.report.text import percent

FEW = 10  # images of a bin below which its accuracy says little


def reliability(runs: Sequence[RunData]) -> Figure | None:
    """A reliability diagram a run, of all images and by group."""
    variants = [(run.name, _diagram(run)) for run in runs if run.predictions]
    caption = (
        "Test images in bins of confidence, beside how many of a bin are right: below the dotted line the network is "
        f"overconfident. Bins of under {FEW} images are faded. ECE is the mean gap."
    )
    return Figure("reliability", "Calibration", caption, variants, "run") if variants else None


def _diagram(run: RunData) -> Panels:
    assert run.predictions is not None
    whole = calibration(run.predictions)
    diagonal = Series("perfectly calibrated", [0.0, 100.0], [0.0, 100.0], "line", "muted", "dot", width=1.5)
    lines, words = [], []
    for group, members in (run.groups or {}).items():
        part = calibration(run.predictions, np.isin(run.predictions.labels, members))
        many = part.images >= FEW
        for few, chosen in ((False, many), (True, ~many & (part.images > 0))):  # no line leads through a few images
            if chosen.any():
                x, y = (100 * part.confidence[chosen]).tolist(), (100 * part.accuracy[chosen]).tolist()
                said = [f"{group}: {percent(b)} right of {n} images at {percent(a)} confidence"
                        for a, b, n in zip(x, y, part.images[chosen], strict=True)]  # fmt: skip
                lines.append(
                    Series(group, x, y, "points" if few else "line", group, markers=True, size=6, words=said,
                           faded=[few] * len(x), legend=not few)
                )  # fmt: skip
        if part.images.any():
            words.append(f"{group} {percent(100 * part.error)}")
    said = [f"{n} images at {percent(100 * a) if n else '-'} confidence, {percent(100 * b) if n else '-'} right"
            for a, b, n in zip(whole.confidence, whole.accuracy, whole.images, strict=True)]  # fmt: skip
    right: list[Value] = [100 * float(v) if n else None for v, n in zip(whole.accuracy, whole.images, strict=True)]
    middles = (50 * (whole.edges[:-1] + whole.edges[1:])).tolist()
    bars = Series("right", middles, right, "bars", "run0", words=said, bar_width=100 / len(right) * 0.92, legend=False,
                  faded=[bool(n < FEW) for n in whole.images])  # fmt: skip
    panels = [
        Panel(title, series, y_range=(0, 103), x_range=(0.0, 100.0), x_title="confidence, %", y_title="right",
              percent=True)
        for title, series in ((f"All images: ECE {percent(100 * whole.error)}", [bars, diagonal]),
                              ("By group", [diagonal, *lines]))
        if len(series) > 1
    ]  # fmt: skip
    text = f"Expected calibration error {percent(100 * whole.error)} over all images"
    return Panels(panels, f"{text}{'; ' if words else ''}{', '.join(words)}.", columns=len(panels), height=150)
