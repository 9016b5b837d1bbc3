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
    """A line across a panel at ``at``, with a word where it stands upright."""

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

    def side(self, mark: Mark) -> tuple[bool, bool]:
        """Where there is room for the word of an upright mark: whether to its right, and whether at its lower end."""
        at = _fraction(mark.at, self.x_ends, self.x_scale)
        right = at < 0.6
        reach = (at, at + 0.25) if right else (at - 0.25, at)
        above = below = 0
        for series in self.series:
            for x, y in zip(series.x, series.y, strict=True):
                across, up = _fraction(x, self.x_ends, self.x_scale), _fraction(y, self.y_ends, self.y_scale)
                if reach[0] <= across <= reach[1]:
                    above, below = above + (up > 0.82), below + (up < 0.18)
        return right, above > below


def _ends(values: Iterable[Value], scale: Scale) -> tuple[float, float]:
    known = [value for value in values if value is not None and (scale == "linear" or value > 0)]
    return (min(known), max(known)) if known else (1.0, 10.0)


def _fraction(value: Value, ends: tuple[float, float], scale: Scale) -> float:
    """Where a value lies along an axis, 0 at its beginning and 1 at its end; nan where it does not."""
    low, high = ends
    if value is None or (scale == "log" and value <= 0):
        return math.nan
    if scale == "log":
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / ((high - low) or 1)


@dataclass(frozen=True)
class Panels:
    """Panels in rows. ``text`` says in words what is to be seen, for those who do not see it. ``height``: pixels of a
    row. ``ranges``: named views of the x axis that a button sets."""

    panels: list[Panel]
    text: str
    columns: int = 1
    height: int = 260
    shared_x: bool = False
    shared_y: bool = False
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)


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
    """One drawing, or several to choose from by a list (``choice`` says of what)."""

    key: str
    title: str
    caption: str
    variants: Sequence[tuple[str, Drawing]]
    choice: str = ""
    start: int = 0


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
