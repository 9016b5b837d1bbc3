"""Where ticks and words go; the same on the page and in a paper."""

from __future__ import annotations

import math

from saddlescape.report.panels import Panel
from saddlescape.report.text import number, raised


def y_ends(panel: Panel) -> tuple[float, float]:
    if panel.y_range:
        return panel.y_range
    positive = panel.y_scale == "log"
    values = [v for series in panel.series for v in series.y if v is not None and (v > 0 or not positive)]
    return (min(values), max(values)) if values else (1.0, 10.0)


def x_ends(panel: Panel) -> tuple[float, float]:
    if panel.x_range:
        return panel.x_range
    values = [v for series in panel.series for v in series.x if v is not None and v > 0]
    return (min(values), max(values)) if values else (1.0, 10.0)


def extent(panel: Panel) -> tuple[float, float]:
    values = [v for series in panel.series for v in series.x if v is not None]
    if panel.x_scale == "log":
        values = [math.log10(v) for v in values if v > 0]
    return (min(values), max(values)) if values else (0.0, 1.0)


def crowded(panel: Panel, at: float, reach: float) -> bool:
    """Whether more curves pass a mark's upper end than its lower one, on the side where its word would stand."""
    bottom, top = y_ends(panel)
    low, high = sorted((at, at + reach))
    above = below = 0
    for series in panel.series:
        for x, y in zip(series.x, series.y, strict=True):
            if x is None or y is None or (panel.y_scale == "log" and y <= 0) or (panel.x_scale == "log" and x <= 0):
                continue
            if low <= (math.log10(x) if panel.x_scale == "log" else x) <= high:
                share = (
                    math.log(y / bottom) / (math.log(top / bottom) or 1)
                    if panel.y_scale == "log"
                    else ((y - bottom) / ((top - bottom) or 1))
                )
                above, below = above + (share > 0.82), below + (share < 0.18)
    return above > below


def log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Few ticks with plain names: 1, 2, 5 over a short range, powers of ten over a long one."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    if last - first <= 2:
        return [(m * 10.0**e, number(m * 10.0**e)) for e in range(first - 1, last + 1) for m in (1, 2, 5)]
    step = math.ceil((last - first) / 6)
    powers = range(first - first % step - step, last + step + 1, step)
    return [(10.0**e, number(10.0**e) if -2 < e < 4 else f"10{raised(e)}") for e in powers]
