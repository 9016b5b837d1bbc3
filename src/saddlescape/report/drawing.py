"""What a figure shows, free of any library: panels of series, a heatmap or loss surfaces.

``plotly_figure`` (for the page) and ``matplotlib_figure`` (for a paper) draw exactly these numbers, with the ticks and
the places of words found here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from saddlescape.report.palette import HEAT_LIGHT
from saddlescape.report.text import number, raised

Kind = Literal["line", "points", "bars", "area"]
Scale = Literal["linear", "log"]
Value = float | None

HEAT_SCALE = tuple(zip((0.0, 0.02, 0.15, 0.4, 0.7, 1.0), HEAT_LIGHT, strict=True))
MOST_WRITTEN = 12  # rows of a heatmap up to which its cells are written out
MOST_DESCRIBED = 8  # series of a panel that are put into words


@dataclass(frozen=True)
class Series:
    """Points (x, y). ``low`` and ``high`` are absolute ends of error bars (a band for lines); ``hollow[i]`` marks a
    value that is not settled, ``faded[i]`` one of few images; ``words[i]`` appears at the pointer. ``colour`` is a
    name of ``palette``. ``legend``: series of one name share an entry."""

    name: str
    x: Sequence[Value]
    y: Sequence[Value]
    kind: Kind = "line"
    colour: str = "ink"
    dash: str = "solid"
    symbol: str = "circle"
    low: Sequence[Value] | None = None
    high: Sequence[Value] | None = None
    hollow: Sequence[bool] = ()
    faded: Sequence[bool] = ()
    words: Sequence[str] | None = None
    width: float = 2.0
    size: float = 7.0
    markers: bool = False  # a line that shows its points too
    bar_width: float | None = None
    legend: bool = True


@dataclass(frozen=True)
class Mark:
    """A line across a panel at ``at``; an upright one may have a word at its top."""

    at: float
    text: str = ""
    colour: str = "mark"


@dataclass(frozen=True)
class Panel:
    """One pair of axes. ``x_ticks`` and ``y_ticks``: (place, name) where an axis names things."""

    title: str
    series: list[Series]
    x_title: str = ""
    y_title: str = ""
    x_scale: Scale = "linear"
    y_scale: Scale = "linear"
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    x_ticks: list[tuple[float, str]] | None = None
    y_ticks: list[tuple[float, str]] | None = None
    v_marks: list[Mark] = field(default_factory=list)
    h_marks: list[Mark] = field(default_factory=list)
    shaded: tuple[float, float] | None = None  # x from, to: the negative part
    percent: bool = False  # y in percent

    @property
    def x_ends(self) -> tuple[float, float]:
        return self.x_range or _ends([v for series in self.series for v in series.x], self.x_scale)

    @property
    def y_ends(self) -> tuple[float, float]:
        return self.y_range or _ends([v for series in self.series for v in series.y], self.y_scale)

    def right_of(self, mark: Mark) -> bool:
        """Whether the word of an upright mark stands to its right: on the side with more room."""
        low, high = self.x_ends
        at, low, high = (math.log(v) for v in (mark.at, low, high)) if self.x_scale == "log" else (mark.at, low, high)
        return (at - low) / ((high - low) or 1) < 0.6

    @property
    def text(self) -> str:
        """The panel in words: where each series begins and ends, and its lowest and highest value."""
        found = []
        for series in self.series[:MOST_DESCRIBED]:
            values, places = (series.x, series.y) if self.y_ticks else (series.y, series.x)
            points = [(y, x) for y, x in zip(values, places, strict=True) if y is not None and x is not None]
            if points:
                inner = {"lowest": min(points), "highest": max(points)}
                words = [f", {word} {self._at(point)}" for word, point in inner.items()
                         if point not in (points[0], points[-1])]  # fmt: skip
                to = f" to {self._at(points[-1])}" if len(points) > 1 else ""
                found.append(f"{series.name}: {self._at(points[0])}{to}{''.join(words)}")
        return f"{self.title}. {'; '.join(found)}."

    def _at(self, point: tuple[float, float]) -> str:
        """ "12 % at truck": a value, and the place or the name of the other axis."""
        ticks = self.y_ticks or self.x_ticks or ()
        place = next((name for at, name in ticks if abs(at - point[1]) < 0.5), number(point[1]))
        return f"{number(point[0])}{' %' if self.percent else ''} at {place}"


def _ends(values: Iterable[Value], scale: Scale) -> tuple[float, float]:
    known = [value for value in values if value is not None and (scale == "linear" or value > 0)]
    return (min(known), max(known)) if known else (1.0, 10.0)


@dataclass(frozen=True)
class Panels:
    """Panels in rows. ``note``: what ``text``, the drawing in words, says beyond its panels. ``height``: pixels of a
    row. ``ranges``: named views of the x axis that a button sets."""

    panels: list[Panel]
    note: str = ""
    columns: int = 1
    height: int = 260
    shared_x: bool = False
    shared_y: bool = False
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return " ".join([self.note] * bool(self.note) + [panel.text for panel in self.panels])


@dataclass(frozen=True)
class Heatmap:
    """``z`` [rows, columns] in percent (None: no images) with names of both; ``words`` [rows][columns]."""

    z: list[list[Value]]
    rows: list[str]
    columns: list[str]
    x_title: str
    y_title: str
    words: list[list[str]]
    text: str


@dataclass(frozen=True)
class Relief:
    """Loss surfaces on one vertical scale: ``z[i]`` [A][B] over ``x`` (along the second direction) and ``y`` (the
    first), and beside them ``slice``, the losses along the first direction alone."""

    names: list[str]
    x: list[list[float]]
    y: list[list[float]]
    z: list[list[list[Value]]]
    centers: list[float]
    ends: tuple[float, float]  # of the vertical axis; walls above are not drawn, or they would hide the saddle
    slice: Panel
    x_title: str
    y_title: str
    text: str


Drawing = Panels | Heatmap | Relief


@dataclass(frozen=True)
class Figure:
    """One drawing, or several to choose from by a list (``choice``: of what)."""

    key: str
    title: str
    caption: str
    variants: Sequence[tuple[str, Drawing]]
    choice: str = ""
    start: int = 0
    folded: bool = False  # only its title is shown until a reader opens it


def log_ticks(ends: tuple[float, float]) -> list[tuple[float, str]]:
    """Few ticks with plain names: 1, 2, 5 over a short range, powers of ten over a long one."""
    first, last = math.floor(math.log10(ends[0])), math.ceil(math.log10(ends[1]))
    if last - first <= 2:
        return [(m * 10.0**e, number(m * 10.0**e)) for e in range(first - 1, last + 1) for m in (1, 2, 5)]
    step = math.ceil((last - first) / 6)
    powers = range(first - first % step - step, last + step + 1, step)
    return [(10.0**e, number(10.0**e) if -2 < e < 4 else f"10{raised(e)}") for e in powers]


def letters(ticks: Sequence[tuple[float, str]]) -> tuple[int, int]:
    """(of the longest name, that all names beside each other take)."""
    longest = max(len(name) for _, name in ticks)
    return longest, longest * len(ticks)


def log_if_positive(series: Sequence[Series]) -> Scale:
    """A logarithmic axis where all values have a place on one."""
    return "log" if all(value is None or value > 0 for one in series for value in one.y) else "linear"


def over_seeds(name: str, points: Iterable[tuple[float, Value]], **style: Any) -> Series | None:
    """The mean at each x, with a band from the least to the greatest; None where no value is known."""
    places: dict[float, list[float]] = {}
    for x, y in points:
        if y is not None:
            places.setdefault(float(x), []).append(float(y))
    if not places:
        return None
    xs = sorted(places)
    if any(len(values) > 1 for values in places.values()):
        style |= {"low": [min(places[x]) for x in xs], "high": [max(places[x]) for x in xs]}
    return Series(name, xs, [sum(places[x]) / len(places[x]) for x in xs], **style)


def binned(y: Sequence[Value], bins: int) -> dict[str, Any]:
    """``x`` (middle positions), ``y`` (means), ``low`` and ``high`` of runs of neighbours: for more classes than can be
    seen."""
    values = np.array([np.nan if value is None else value for value in y], float)
    found: dict[str, Any] = {"x": [], "y": [], "low": [], "high": []}
    for chunk in np.array_split(np.arange(len(values)), min(bins, max(len(values), 1))):
        present = values[chunk][~np.isnan(values[chunk])]
        found["x"].append(float(chunk.mean()))
        for key, function in (("y", np.mean), ("low", np.min), ("high", np.max)):
            found[key].append(float(function(present)) if len(present) else None)
    return found
