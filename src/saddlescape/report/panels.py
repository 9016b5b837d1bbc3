"""What a picture shows, free of any library: panels of series, drawn by ``charts`` (plotly), ``figures`` (matplotlib).

Both draw exactly these numbers, so a test that compares a picture with its file compares both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Kind = Literal["line", "points", "bars", "area"]
Scale = Literal["linear", "log"]
Value = float | None


@dataclass(frozen=True)
class Series:
    """Points (x, y). ``low`` and ``high`` are absolute ends of error bars (a band for lines); ``hollow[i]`` marks a
    figure that is not settled; ``words[i]`` is what pointing at it says. ``base``: bars start there. ``colour`` is a
    name of ``palette``. ``legend``: series of one name share an entry; "" has none."""

    name: str
    x: Sequence[Value]
    y: Sequence[Value]
    kind: Kind = "line"
    colour: str = "ink"
    dash: str = "solid"
    symbol: str = "circle"
    low: Sequence[Value] | None = None
    high: Sequence[Value] | None = None
    hollow: Sequence[bool] | None = None
    words: Sequence[str] | None = None
    width: float = 2.0
    size: float = 7.0
    markers: bool = False  # a line that shows its points too
    bar_width: float | None = None
    legend: bool = True


@dataclass(frozen=True)
class Mark:
    """A line across a panel at ``at``, with a word."""

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


@dataclass(frozen=True)
class Picture:
    """``text`` says in words what is to be seen, for those who do not see it. ``height``: pixels of one row.

    ``ranges``: named views of the x axis that a button sets."""

    panels: list[Panel]
    text: str
    columns: int = 1
    height: int = 260
    shared_x: bool = False
    shared_y: bool = False
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Heatmap:
    """``z`` [rows, columns] (None: no images) with names of both; ``words`` [rows][columns]."""

    z: list[list[Value]]
    rows: list[str]
    columns: list[str]
    x_title: str
    y_title: str
    words: list[list[str]]
    text: str
    unit: str = "%"


@dataclass(frozen=True)
class Relief:
    """Loss surfaces side by side: ``z[i]`` [A][B] over ``x`` (along the second direction) and ``y`` (the first)."""

    names: list[str]
    x: list[list[float]]
    y: list[list[float]]
    z: list[list[list[Value]]]
    centers: list[float]
    cuts: list[float]  # losses above are not drawn, or the walls would hide the saddle
    x_title: str
    y_title: str
    text: str


Drawing = Picture | Heatmap | Relief


@dataclass(frozen=True)
class Plate:
    """A figure of the page: one drawing, or several to choose from by a list (``choice`` says of what)."""

    key: str
    title: str
    caption: str
    variants: Sequence[tuple[str, Drawing]]
    choice: str = ""
    start: int = 0
    notes: list[str] = field(default_factory=list)


def binned(y: Sequence[Value], parts: int) -> tuple[list[float], list[Value], list[Value], list[Value]]:
    """(middle positions, means, least, greatest) of ``parts`` runs of neighbours: for more classes than can be seen."""
    values = np.array([np.nan if value is None else value for value in y], float)
    x: list[float] = []
    rows: list[tuple[Value, Value, Value]] = []
    for chunk in np.array_split(np.arange(len(values)), min(parts, max(len(values), 1))):
        if len(chunk):
            present = values[chunk][~np.isnan(values[chunk])]
            x.append(float(chunk.mean()))
            empty = (None, None, None)
            rows.append((float(present.mean()), float(present.min()), float(present.max())) if len(present) else empty)
    return x, [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]
