"""A ``Picture`` as a plotly figure, laid out for a wide screen and for a phone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from saddlescape.report.charts.style import axis, colour, faint, layout
from saddlescape.report.palette import LIGHT
from saddlescape.report.panels import Panel, Picture, Series, Value
from saddlescape.report.placing import crowded, extent, log_ticks, x_ends, y_ends
from saddlescape.report.text import label, rounded

TITLE, BELOW, TICKS, GAP = 30, 46, 22, 14  # pixels: above a panel, below it with and without a title, between
LEFT, BETWEEN = 58, 62
BEHIND = f"{LIGHT['paper']}cc"  # behind words that stand on curves


def figure(picture: Picture) -> dict[str, Any]:
    """``{"data", "layout", "narrow", "legend", "ranges"}``: ``narrow`` is the layout with one panel a row."""
    columns = max(1, min(picture.columns, len(picture.panels)))
    traces: list[dict[str, Any]] = []
    for index, panel in enumerate(picture.panels):
        for series in panel.series:
            traces += _traces(series, panel, index)
    return {
        "data": traces,
        "layout": _layout(picture, columns, 110 // columns),
        "narrow": _layout(picture, 1, 40, narrow=True),
        "legend": legend(picture),
        "ranges": {name: list(ends) for name, ends in picture.ranges.items()},
    }


def legend(picture: Picture) -> list[dict[str, Any]]:
    """An entry for each name, in order: what it is drawn with."""
    found: dict[str, dict[str, Any]] = {}
    for panel in picture.panels:
        for series in panel.series:
            if series.legend and series.name not in found:
                found[series.name] = {
                    "name": label(series.name, 60),
                    "colour": colour(series.colour),
                    "dash": series.dash,
                    "kind": series.kind,
                    "symbol": series.symbol if series.kind == "points" or series.markers else "",
                    "hollow": bool(series.hollow) and all(series.hollow or []),
                }
    return list(found.values())


def _suffix(index: int) -> str:
    return "" if index == 0 else str(index + 1)


def _numbers(values: Sequence[Value], digits: int = 5) -> list[float | int | None]:
    return [rounded(value, digits) for value in values]


def _evenly(values: Sequence[Value]) -> tuple[float, float] | None:
    """(first, step) of a long even grid, which need not be written out."""
    if len(values) < 100 or any(value is None for value in values):
        return None
    first, last = float(values[0] or 0.0), float(values[-1] or 0.0)
    step = (last - first) / (len(values) - 1)
    even = all(abs(float(v or 0.0) - first - i * step) <= 1e-6 * abs(last - first) for i, v in enumerate(values))
    return (first, step) if even and step else None


def _traces(series: Series, panel: Panel, index: int) -> list[dict[str, Any]]:
    place = {"xaxis": f"x{_suffix(index)}", "yaxis": f"y{_suffix(index)}"}
    common = {**place, "legendgroup": label(series.name, 60), "name": label(series.name, 60), "showlegend": False}
    shade = colour(series.colour)
    even = _evenly(series.x)
    where: dict[str, Any] = {"x0": even[0], "dx": even[1]} if even else {"x": _numbers(series.x, 6)}
    words = None if series.words is None else [label(word, 160) for word in series.words]
    spoken: dict[str, Any] = {"hovertext": words, "hoverinfo": "text"} if words else {"hoverinfo": "x+y+name"}
    if series.kind == "bars":
        return [
            {"type": "bar", **common, **where, "y": _numbers(series.y, 4), "width": series.bar_width,
             "marker": {"color": shade, "line": {"width": 0}}, **spoken}
        ]  # fmt: skip
    found: list[dict[str, Any]] = []
    marker = {
        "color": shade,
        "size": series.size,
        "symbol": _symbols(series),
        "line": {"width": 1.6 if series.hollow and any(series.hollow) else 0, "color": shade},
    }
    if series.kind == "points":
        return [
            {"type": "scatter", "mode": "markers", **common, **where, "y": _numbers(series.y), "marker": marker,
             **_errors(series, panel), **spoken, "cliponaxis": False}
        ]  # fmt: skip
    if series.low is not None and series.high is not None:
        band = [(x, a, b) for x, a, b in zip(series.x, series.low, series.high, strict=True) if None not in (x, a, b)]
        found.append(
            {"type": "scatter", "mode": "lines", **common, "line": {"width": 0, "color": shade}, "fill": "toself",
             "x": _numbers([x for x, _, _ in band] + [x for x, _, _ in band[::-1]], 6),
             "y": _numbers([a for _, a, _ in band] + [b for _, _, b in band[::-1]]),
             "fillcolor": faint(series.colour), "hoverinfo": "skip", "meta": "band"}
        )  # fmt: skip
    line = {
        "type": "scatter",
        "mode": "lines+markers" if series.markers else "lines",
        **common,
        **where,
        "y": _numbers(series.y),
        "line": {"color": shade, "width": series.width, "dash": series.dash},
        **spoken,
    }
    if series.markers:
        line["marker"] = marker
    if series.kind == "area":
        line |= {"fill": "tozeroy", "fillcolor": faint(series.colour, 0.22)}
    return [*found, line]


def _symbols(series: Series) -> str | list[str]:
    if not series.hollow or not any(series.hollow):
        return series.symbol
    if all(series.hollow):
        return f"{series.symbol}-open"
    return [f"{series.symbol}-open" if empty else series.symbol for empty in series.hollow]


def _errors(series: Series, panel: Panel) -> dict[str, Any]:
    """Error bars along y; along x where the y axis only names things."""
    if series.low is None or series.high is None:
        return {}
    along, values = ("x", series.x) if panel.y_ticks else ("y", series.y)
    up = [None if v is None or h is None else rounded(h - v) for v, h in zip(values, series.high, strict=True)]
    down = [None if v is None or h is None else rounded(v - h) for v, h in zip(values, series.low, strict=True)]
    if not any(up) and not any(down):
        return {}
    bar = {"type": "data", "symmetric": False, "array": up, "arrayminus": down, "thickness": 1.3, "width": 3}
    return {f"error_{along}": {**bar, "color": colour(series.colour)}}


def _layout(picture: Picture, columns: int, letters: int, *, narrow: bool = False) -> dict[str, Any]:
    """``letters``: how many find room below a panel; names that need more are turned. ``narrow``: titles begin at the
    edge, above the ticks too, or a phone would cut them off."""
    panels = picture.panels
    rows = -(-len(panels) // columns)
    below = [_below(panel, picture, i, columns, letters) for i, panel in enumerate(panels)]
    row_below = [max(below[r * columns : (r + 1) * columns]) for r in range(rows)]
    left = max(_left(panel) for panel in panels)
    plot = picture.height - TITLE
    inner = rows * (plot + TITLE) + sum(row_below) + (rows - 1) * GAP
    bottom = row_below[-1]
    body = inner - TITLE - bottom  # plotly's domains leave out the margins
    found = layout(inner, {"l": left, "r": 14, "t": TITLE, "b": bottom}, bargap=0.1)
    # Widths of gaps are fractions of a width that is not known here: about 880 pixels on a wide screen.
    gap = (14 if picture.shared_y and panels[0].y_ticks else BETWEEN) / (880 if columns > 1 else 1)
    wide = (1 - gap * (columns - 1)) / columns
    notes: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    top = 0.0
    for row in range(rows):
        for column, panel in enumerate(panels[row * columns : (row + 1) * columns]):
            index = row * columns + column
            x = (column * (wide + gap), column * (wide + gap) + wide)
            y = (1 - (top + plot) / body, 1 - top / body)
            y = (max(0.0, y[0]), min(1.0, y[1]))
            name = _suffix(index)
            found[f"xaxis{name}"] = _x_axis(panel, picture, index, x, columns, letters)
            found[f"yaxis{name}"] = _y_axis(panel, picture, index, y, column)
            notes.append(
                {"text": f"<b>{label(panel.title, 44 if narrow else 60)}</b>", "x": x[0], "y": y[1], "xref": "paper",
                 "yref": "paper", "xanchor": "left", "yanchor": "bottom", "showarrow": False, "yshift": 7,
                 "xshift": 6 - left if narrow else 0, "align": "left",
                 "font": {"size": 12 if narrow else 13, "color": LIGHT["ink"]}}
            )  # fmt: skip
            shapes += _shapes(panel, name)
            notes += _mark_words(panel, name)
        top += plot + row_below[row] + GAP + TITLE
    return {**found, "annotations": notes, "shapes": shapes}


def _left(panel: Panel) -> int:
    if not panel.y_ticks:
        return LEFT
    return min(190, 20 + 7 * max(len(name) for _, name in panel.y_ticks))


def _below(panel: Panel, picture: Picture, index: int, columns: int, letters: int) -> int:
    last = index + columns >= len(picture.panels)
    if picture.shared_x and not last:
        return TICKS if panel.x_ticks is None else 6
    names = 0
    if panel.x_ticks:
        longest = max(len(name) for _, name in panel.x_ticks)
        upright = longest * len(panel.x_ticks) > letters
        names = min(110, 6 * longest) if upright else 0
    return (BELOW if panel.x_title else TICKS) + names


def _x_axis(
    panel: Panel, picture: Picture, index: int, domain: tuple[float, float], columns: int, letters: int
) -> dict[str, Any]:
    last = index + columns >= len(picture.panels)
    hidden = picture.shared_x and not last
    found = axis("" if hidden else panel.x_title, domain=list(domain), anchor=f"y{_suffix(index)}", showgrid=False)
    found["showline"] = True
    found["ticks"] = "outside"
    found["tickcolor"] = LIGHT["zero"]
    found["ticklen"] = 4
    if picture.shared_x and index:
        found["matches"] = "x"
    if panel.x_scale == "log":
        found |= {"type": "log", **_ticks(*x_ends(panel))}
    if panel.x_range:
        found["range"] = _range(panel.x_range, panel.x_scale)
    if panel.x_ticks:
        longest = max(len(name) for _, name in panel.x_ticks)
        turned = longest * len(panel.x_ticks) > letters
        found |= {
            "tickvals": [at for at, _ in panel.x_ticks],
            "ticktext": [label(name) for _, name in panel.x_ticks],
            "tickangle": -60 if turned else 0,
            "showticklabels": not hidden,
        }
    return found


def _y_axis(panel: Panel, picture: Picture, index: int, domain: tuple[float, float], column: int) -> dict[str, Any]:
    titled = panel.y_title and not (picture.shared_y and column)
    found = axis(panel.y_title if titled else "", domain=list(domain), anchor=f"x{_suffix(index)}")
    if picture.shared_y and index:
        found["matches"] = "y"
    if panel.y_scale == "log":
        found |= {"type": "log", **_ticks(*y_ends(panel))}
    else:
        found["nticks"] = 6
    if panel.y_range:
        found["range"] = _range(panel.y_range, panel.y_scale)
    if panel.y_ticks:
        found |= {
            "tickvals": [at for at, _ in panel.y_ticks],
            "ticktext": [label(name) for _, name in panel.y_ticks],
            "showticklabels": True,
            "gridcolor": LIGHT["grid"],
        }
        if picture.shared_y and column:
            found["showticklabels"] = False
    elif panel.percent:
        found["ticksuffix"] = "%"
    return found


def _ticks(low: float, high: float) -> dict[str, Any]:
    ticks = log_ticks(low, high)
    return {"tickvals": [at for at, _ in ticks], "ticktext": [name for _, name in ticks]}


def _range(ends: tuple[float, float], scale: str) -> list[float]:
    return [math.log10(end) for end in ends] if scale == "log" else list(ends)


def _shapes(panel: Panel, name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if panel.shaded:
        found.append(
            {"type": "rect", "xref": f"x{name}", "yref": f"y{name} domain", "x0": panel.shaded[0],
             "x1": panel.shaded[1], "y0": 0, "y1": 1, "line": {"width": 0}, "fillcolor": faint("negative", 0.09),
             "layer": "below"}
        )  # fmt: skip
    for mark in panel.v_marks:
        found.append(
            {"type": "line", "xref": f"x{name}", "yref": f"y{name} domain", "x0": mark.at, "x1": mark.at, "y0": 0,
             "y1": 1, "line": {"width": 1.2, "dash": "dot", "color": colour(mark.colour)}}
        )  # fmt: skip
    for mark in panel.h_marks:
        found.append(
            {"type": "line", "xref": f"x{name} domain", "yref": f"y{name}", "x0": 0, "x1": 1, "y0": mark.at,
             "y1": mark.at, "line": {"width": 1.2, "color": colour(mark.colour)}, "layer": "below"}
        )  # fmt: skip
    return found


def _mark_words(panel: Panel, name: str) -> list[dict[str, Any]]:
    """Words beside marks, on the side where there is room."""
    found = []
    low, high = panel.x_range or extent(panel)
    for place, mark in enumerate(mark for mark in panel.v_marks if mark.text):
        at = math.log10(mark.at) if panel.x_scale == "log" else mark.at
        right = (at - low) / ((high - low) or 1) < 0.6
        low_down = crowded(panel, at, (high - low) * (0.25 if right else -0.25))
        at_y = 0.0 if low_down else 1.0
        found.append(
            {"text": label(mark.text, 40), "x": at, "xref": f"x{name}", "y": at_y, "yref": f"y{name} domain",
             "xanchor": "left" if right else "right", "yanchor": "bottom" if low_down else "top",
             "xshift": 3 if right else -3, "yshift": 15 * place if low_down else -15 * place, "bgcolor": BEHIND,
             "showarrow": False, "font": {"size": 11, "color": colour(mark.colour)}}
        )  # fmt: skip
    for mark in panel.h_marks:
        if mark.text:
            at = math.log10(mark.at) if panel.y_scale == "log" else mark.at
            found.append(
                {"text": label(mark.text, 40), "x": 1, "xref": f"x{name} domain", "y": at, "yref": f"y{name}",
                 "xanchor": "right", "yanchor": "bottom", "showarrow": False,
                 "font": {"size": 11, "color": colour(mark.colour)}}
            )  # fmt: skip
    return found
