"""A ``Picture`` as a matplotlib figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from saddlescape.report.figures.style import WIDTH, figure_class
from saddlescape.report.palette import LIGHT
from saddlescape.report.panels import Mark, Panel, Picture, Series, Value
from saddlescape.report.placing import crowded, extent, log_ticks, x_ends, y_ends
from saddlescape.report.text import short

LINES = {"solid": "-", "dash": (0, (5, 2)), "dot": (0, (1, 1.5)), "dashdot": (0, (5, 1.5, 1, 1.5))}
MARKERS = {"circle": "o", "diamond": "D", "square": "s", "triangle-up": "^", "cross": "P", "x": "X", "star": "*",
           "hexagon": "h"}  # fmt: skip


def draw(picture: Picture) -> Any:
    """Every number of ``picture`` at its place; one legend for all panels, above them."""
    columns = max(1, min(picture.columns, len(picture.panels)))
    rows = -(-len(picture.panels) // columns)
    figure = figure_class()(figsize=(WIDTH, 0.4 + rows * picture.height / 145), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=picture.shared_x, sharey=picture.shared_y)
    handles: dict[str, Any] = {}
    for index, ax in enumerate(axes.flat):
        if index >= len(picture.panels):
            ax.set_visible(False)
            continue
        _panel(ax, picture.panels[index], handles, last=index + columns >= len(picture.panels) or not picture.shared_x)
    if handles:
        figure.legend(list(handles.values()), [short(name, 40) for name in handles], loc="outside upper center",
                      ncols=_abreast([short(name, 40) for name in handles]))  # fmt: skip
    return figure


def _abreast(names: Sequence[str]) -> int:
    """As many entries of a legend in a line as the page's width has room for."""
    widest = max(len(name) for name in names) + 7  # letters; the sign and its gap take about seven
    return max(1, min(len(names), 110 // widest))


def _panel(ax: Any, panel: Panel, handles: dict[str, Any], *, last: bool) -> None:
    ax.set_title(panel.title, loc="left", fontweight="bold")
    ax.margins(y=0.1)  # a point at the end of the axis is drawn whole
    ax.set_xscale(panel.x_scale)
    ax.set_yscale(panel.y_scale)
    if panel.shaded:
        ax.axvspan(*panel.shaded, color=LIGHT["negative"], alpha=0.09, linewidth=0)
    for series in panel.series:
        handle = _series(ax, series, panel)
        if series.legend:
            handles.setdefault(series.name, handle)
    for mark in panel.v_marks:
        ax.axvline(mark.at, color=LIGHT[mark.colour], linewidth=0.8, linestyle=LINES["dot"])
        if mark.text:
            _word(ax, panel, mark)
    for mark in panel.h_marks:
        ax.axhline(mark.at, color=LIGHT[mark.colour], linewidth=0.6)
    if panel.x_range:
        ax.set_xlim(*panel.x_range)
    if panel.y_range:
        ax.set_ylim(*panel.y_range)
    if panel.x_title and last:
        ax.set_xlabel(panel.x_title)
    if panel.x_scale == "log":
        _log(ax.xaxis, x_ends(panel))
    if panel.y_scale == "log":
        _log(ax.yaxis, y_ends(panel))
    if panel.percent or panel.y_title:
        ax.set_ylabel(panel.y_title or "%")
    if panel.x_ticks:
        ax.set_xticks([at for at, _ in panel.x_ticks], [name for _, name in panel.x_ticks])
        if max(len(name) for _, name in panel.x_ticks) * len(panel.x_ticks) > 60:
            ax.tick_params(axis="x", rotation=60)
    if panel.y_ticks:
        ax.set_yticks([at for at, _ in panel.y_ticks], [name for _, name in panel.y_ticks])


def _word(ax: Any, panel: Panel, mark: Mark) -> None:
    """A mark's word, on the side and at the end where there is room."""
    low, high = panel.x_range or extent(panel)
    at = math.log10(mark.at) if panel.x_scale == "log" else mark.at
    right = (at - low) / ((high - low) or 1) < 0.6
    down = crowded(panel, at, (high - low) * (0.25 if right else -0.25))
    ax.annotate(mark.text, (mark.at, 0.0 if down else 1.0), xycoords=("data", "axes fraction"),
                xytext=(2 if right else -2, 2 if down else -2), textcoords="offset points",
                ha="left" if right else "right", va="bottom" if down else "top", fontsize=6,
                color=LIGHT[mark.colour])  # fmt: skip


def _log(axis: Any, ends: tuple[float, float]) -> None:
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    ticks = log_ticks(*ends)
    axis.set_major_locator(FixedLocator([at for at, _ in ticks]))
    axis.set_major_formatter(FixedFormatter([name for _, name in ticks]))
    axis.set_minor_locator(NullLocator())


def _array(values: Sequence[Value]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], float)


def _series(ax: Any, series: Series, panel: Panel) -> Any:
    x, y, colour = _array(series.x), _array(series.y), LIGHT[series.colour]
    if series.kind == "bars":
        return ax.bar(x, y, width=series.bar_width or 0.8, color=colour, label=series.name)
    if series.kind in ("line", "area"):
        (handle,) = ax.plot(x, y, color=colour, linestyle=LINES[series.dash], linewidth=0.6 * series.width,
                            label=series.name)  # fmt: skip
        if series.low is not None and series.high is not None:
            ax.fill_between(x, _array(series.low), _array(series.high), color=colour, alpha=0.18, linewidth=0)
        if series.kind == "area":
            floor = panel.y_range[0] if panel.y_range else 0.0
            ax.fill_between(x, floor, y, color=colour, alpha=0.22, linewidth=0)
        if series.markers:
            _points(ax, series, x, y, colour)
        return handle
    if series.low is not None and series.high is not None:
        along = panel.y_ticks is not None
        middle = x if along else y
        ends = np.abs(np.stack([middle - _array(series.low), _array(series.high) - middle]))
        errors = {"xerr" if along else "yerr": ends}
        ax.errorbar(x, y, fmt="none", ecolor=colour, elinewidth=0.8, capsize=1.5, **errors)
    return _points(ax, series, x, y, colour)


def _points(ax: Any, series: Series, x: np.ndarray, y: np.ndarray, colour: str) -> Any:
    """Filled points, and hollow ones where a figure is not settled."""
    hollow = np.array(series.hollow if series.hollow is not None else [False] * len(x), bool)
    marker, size, handle = MARKERS[series.symbol], series.size * 0.5, None
    for chosen, face in ((~hollow, colour), (hollow, "white")):
        if chosen.any():
            (drawn,) = ax.plot(x[chosen], y[chosen], linestyle="none", marker=marker, markersize=size,
                               markerfacecolor=face, markeredgecolor=colour, markeredgewidth=0.8)  # fmt: skip
            handle = handle or drawn
    return handle
