"""Drawings as plotly figures: plain dictionaries, so that plotly itself is needed only on the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from saddlescape.report.drawing import (
    HEAT_SCALE,
    MOST_WRITTEN,
    Drawing,
    Heatmap,
    Panel,
    Panels,
    Relief,
    Series,
    Value,
    letters,
    log_ticks,
)
from saddlescape.report.palette import LIGHT
from saddlescape.report.text import label, rounded

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
TITLE, BELOW, TICKS, GAP = 30, 46, 22, 14  # pixels: above a panel, below it with and without a title, between
LEFT, BETWEEN = 58, 62
WIDE = 880  # pixels of the panels on a wide screen, about
BEHIND = f"{LIGHT['paper']}cc"  # behind words that stand on curves
SURFACE_SCALE = "Viridis"  # even in lightness, so read alike by all eyes
CAMERA = {"eye": {"x": 1.55, "y": -1.45, "z": 1.0}, "center": {"x": 0, "y": 0, "z": -0.1}}
SURFACE_HEIGHT, SLICE_HEIGHT = 340, 240
PALE = 0.3  # opacity of what stands for few images


def figure(drawing: Drawing) -> dict[str, Any]:
    """``{"data", "layout", "narrow", "legend", "ranges"}``: ``narrow`` is the layout of a phone, one panel a row;
    ``ranges``, named views of the x axis."""
    if isinstance(drawing, Heatmap):
        left = min(150, 34 + 7 * max((len(name) for name in drawing.rows), default=1))
        layouts = _heatmap_layout(drawing, left), _heatmap_layout(drawing, min(110, left))
        return _figure([_heatmap(drawing)], *layouts)
    if isinstance(drawing, Relief):
        slices = [trace for series in drawing.slice.series for trace in _traces(series, drawing.slice, 0)]
        layouts = _relief_layout(drawing, True), _relief_layout(drawing, False)
        return _figure([*_surfaces(drawing), *slices], *layouts, legend=_legend(Panels([drawing.slice])))
    traces = [
        trace
        for index, panel in enumerate(drawing.panels)
        for series in panel.series
        for trace in _traces(series, panel, index)
    ]
    columns = max(1, min(drawing.columns, len(drawing.panels)))
    layouts = _layout(drawing, columns, 110 // columns), _layout(drawing, 1, 40, narrow=True)
    ranges = {name: list(ends) for name, ends in drawing.ranges.items()}
    return _figure(traces, *layouts, legend=_legend(drawing), ranges=ranges)


def _figure(data: Any, layout: Any, narrow: Any, legend: Sequence[Any] = (), ranges: Any = None) -> dict[str, Any]:
    return {"data": data, "layout": layout, "narrow": narrow, "legend": list(legend), "ranges": ranges or {}}


def _legend(drawing: Panels) -> list[dict[str, Any]]:
    """An entry for each name, in order: what it is drawn with."""
    found: dict[str, dict[str, Any]] = {}
    for series in (series for panel in drawing.panels for series in panel.series if series.legend):
        entry = {
            "name": label(series.name, 60), "colour": LIGHT[series.colour], "dash": series.dash, "kind": series.kind,
            "symbol": series.symbol if series.kind == "points" or series.markers else "",
            "hollow": bool(series.hollow) and all(series.hollow),
        }  # fmt: skip
        found.setdefault(series.name, entry)
    return list(found.values())


def _faint(name: str, alpha: float = 0.18) -> str:
    """A translucent fill. The page exchanges it with its colour, so it is written ``#rrggbbaa``."""
    return f"{LIGHT[name]}{round(alpha * 255):02x}"


def _axis(title: str = "", **more: Any) -> dict[str, Any]:
    return {
        "title": {"text": title, "standoff": 8, "font": {"size": 12, "color": LIGHT["muted"]}},
        "gridcolor": LIGHT["grid"],
        "zeroline": False,
        "linecolor": LIGHT["zero"],
        "tickfont": {"size": 11, "color": LIGHT["muted"]},
        "automargin": False,
        "fixedrange": False,
        **more,
    }


def _page(height: int, margin: dict[str, int], **more: Any) -> dict[str, Any]:
    """What the layouts of all figures share."""
    return {
        "height": height,
        "margin": margin,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"family": FONT, "size": 12, "color": LIGHT["ink"]},
        "showlegend": False,
        "hoverlabel": {"font": {"family": FONT, "size": 12}, "align": "left"},
        **more,
    }


def _words(text: str, size: int, colour: str, **more: Any) -> dict[str, Any]:
    return {"text": text, "showarrow": False, "font": {"size": size, "color": LIGHT[colour]}, **more}


def _suffix(index: int) -> str:
    return "" if index == 0 else str(index + 1)


def _numbers(values: Sequence[Value], digits: int = 5) -> list[float | int | None]:
    return [rounded(value, digits) for value in values]


# Traces


def _place(values: Sequence[Value]) -> dict[str, Any]:
    """``x``; of a long even grid only its beginning and step."""
    if len(values) >= 100 and None not in values:
        first, last = float(values[0] or 0.0), float(values[-1] or 0.0)
        step = (last - first) / (len(values) - 1)
        even = all(abs(float(v or 0.0) - first - i * step) <= 1e-6 * abs(last - first) for i, v in enumerate(values))
        if even and step:
            return {"x0": first, "dx": step}
    return {"x": _numbers(values, 6)}


def _traces(series: Series, panel: Panel, index: int) -> list[dict[str, Any]]:
    name, colour = label(series.name, 60), LIGHT[series.colour]
    common = {
        "xaxis": f"x{_suffix(index)}", "yaxis": f"y{_suffix(index)}", "legendgroup": name, "name": name,
        "showlegend": False,
    }  # fmt: skip
    words = [label(word, 160) for word in series.words or ()]
    spoken: dict[str, Any] = {"hovertext": words, "hoverinfo": "text"} if words else {"hoverinfo": "x+y+name"}
    whole = {**common, **_place(series.x), **spoken}
    if series.kind == "bars":
        marker: dict[str, Any] = {"color": colour, "line": {"width": 0}, **_opacity(series)}
        return [{"type": "bar", **whole, "y": _numbers(series.y, 4), "width": series.bar_width, "marker": marker}]
    whole |= {"type": "scatter", "y": _numbers(series.y)}
    shapes = [f"{series.symbol}-open" if empty else series.symbol for empty in series.hollow]
    marker = {
        "color": colour, "size": series.size, "symbol": shapes if any(series.hollow) else series.symbol,
        "line": {"width": 1.6 if any(series.hollow) else 0, "color": colour}, **_opacity(series),
    }  # fmt: skip
    if series.kind == "points":
        return [{**whole, "mode": "markers", "marker": marker, **_errors(series, panel), "cliponaxis": False}]
    whole |= {"mode": "lines+markers" if series.markers else "lines",
              "line": {"color": colour, "width": series.width, "dash": series.dash}}  # fmt: skip
    if series.markers:
        whole["marker"] = marker
    if series.kind == "area":
        whole |= {"fill": "tozeroy", "fillcolor": _faint(series.colour, 0.22)}
    if series.low is None or series.high is None:
        return [whole]
    ends = [end for end in zip(series.x, series.low, series.high, strict=True) if None not in end]
    x, low, high = zip(*ends, strict=True)
    band = {"type": "scatter", "mode": "lines", **common, "line": {"width": 0, "color": colour}, "fill": "toself",
            "x": _numbers([*x, *x[::-1]], 6), "y": _numbers([*low, *high[::-1]]),
            "fillcolor": _faint(series.colour), "hoverinfo": "skip", "meta": "band"}  # fmt: skip
    return [band, whole]


def _opacity(series: Series) -> dict[str, Any]:
    return {"opacity": [PALE if pale else 1 for pale in series.faded]} if any(series.faded) else {}


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
    return {f"error_{along}": {**bar, "color": LIGHT[series.colour]}}


# Layouts


def _layout(drawing: Panels, columns: int, room: int, *, narrow: bool = False) -> dict[str, Any]:
    """``room``: letters that fit below a panel; names that need more are turned. ``narrow``: titles begin at the edge,
    above the ticks too, or a phone would cut them off. Plotly's own grid places the panels."""
    panels = drawing.panels
    rows = -(-len(panels) // columns)
    last = [index + columns >= len(panels) for index in range(len(panels))]
    hidden = [drawing.shared_x and not at_end for at_end in last]
    below = [_below(panel, room, off) for panel, off in zip(panels, hidden, strict=True)]
    bottom = max(size for size, at_end in zip(below, last, strict=True) if at_end)
    between = max((size for size, at_end in zip(below, last, strict=True) if not at_end), default=0) + GAP + TITLE
    left = max(_left(panel) for panel in panels)
    plot = drawing.height - TITLE
    # Gaps are fractions of a cell: in a row of a width that is not known here, in a column of known pixels.
    gap = (14 if drawing.shared_y and panels[0].y_ticks else BETWEEN) / WIDE
    found = _page(
        rows * plot + (rows - 1) * between + TITLE + bottom, {"l": left, "r": 14, "t": TITLE, "b": bottom}, bargap=0.1,
        grid={"rows": rows, "columns": columns, "pattern": "independent", "ygap": between / (plot + between),
              "xgap": gap / ((1 + gap) / columns)},
    )  # fmt: skip
    notes: list[dict[str, Any]] = []
    shapes: list[dict[str, Any]] = []
    for index, panel in enumerate(panels):
        name = _suffix(index)
        found[f"xaxis{name}"] = _x_axis(panel, drawing, index, room, hidden[index])
        found[f"yaxis{name}"] = _y_axis(panel, drawing, index, not drawing.shared_y or index % columns == 0)
        notes.append(
            _words(f"<b>{label(panel.title, 44 if narrow else 60)}</b>", 12 if narrow else 13, "ink", align="left",
                   x=0, y=1, xref=f"x{name} domain", yref=f"y{name} domain", xanchor="left", yanchor="bottom",
                   yshift=7, xshift=6 - left if narrow else 0)
        )  # fmt: skip
        shapes += _shapes(panel, name)
        notes += _mark_words(panel, name)
    return {**found, "annotations": notes, "shapes": shapes}


def _left(panel: Panel) -> int:
    return min(190, 20 + 7 * letters(panel.y_ticks)[0]) if panel.y_ticks else LEFT


def _below(panel: Panel, room: int, hidden: bool) -> int:
    if hidden:
        return TICKS if panel.x_ticks is None else 6
    longest, all_names = letters(panel.x_ticks) if panel.x_ticks else (0, 0)
    return (BELOW if panel.x_title else TICKS) + (min(110, 6 * longest) if all_names > room else 0)


def _x_axis(panel: Panel, drawing: Panels, index: int, room: int, hidden: bool) -> dict[str, Any]:
    found = _axis("" if hidden else panel.x_title, anchor=f"y{_suffix(index)}", showgrid=False, showline=True,
                  ticks="outside", tickcolor=LIGHT["zero"], ticklen=4)  # fmt: skip
    found |= {"matches": "x"} if drawing.shared_x and index else {}
    if panel.x_scale == "log":
        found |= {"type": "log", **_ticks(log_ticks(panel.x_ends))}
    if panel.x_range:
        found["range"] = _range(panel.x_range, panel.x_scale)
    if panel.x_ticks:
        turned = letters(panel.x_ticks)[1] > room
        found |= {**_ticks(panel.x_ticks), "tickangle": -60 if turned else 0, "showticklabels": not hidden}
    return found


def _y_axis(panel: Panel, drawing: Panels, index: int, first: bool) -> dict[str, Any]:
    found = _axis(panel.y_title if first else "", anchor=f"x{_suffix(index)}")
    found |= {"matches": "y"} if drawing.shared_y and index else {}
    found |= {"type": "log", **_ticks(log_ticks(panel.y_ends))} if panel.y_scale == "log" else {"nticks": 6}
    if panel.y_range:
        found["range"] = _range(panel.y_range, panel.y_scale)
    if panel.y_ticks:
        found |= {**_ticks(panel.y_ticks), "showticklabels": first}
    elif panel.percent:
        found["ticksuffix"] = "%"
    return found


def _ticks(ticks: Sequence[tuple[float, str]]) -> dict[str, Any]:
    return {"tickvals": [at for at, _ in ticks], "ticktext": [label(name) for _, name in ticks]}


def _range(ends: tuple[float, float], scale: str) -> list[float]:
    return [math.log10(end) for end in ends] if scale == "log" else list(ends)


def _shapes(panel: Panel, name: str) -> list[dict[str, Any]]:
    upright = {"xref": f"x{name}", "yref": f"y{name} domain", "y0": 0, "y1": 1}
    across = {"xref": f"x{name} domain", "yref": f"y{name}", "x0": 0, "x1": 1, "layer": "below"}
    found: list[dict[str, Any]] = []
    if panel.shaded:
        found.append({"type": "rect", **upright, "x0": panel.shaded[0], "x1": panel.shaded[1], "line": {"width": 0},
                      "fillcolor": _faint("negative", 0.09), "layer": "below"})  # fmt: skip
    for mark in panel.v_marks:
        line = {"width": 1.2, "dash": "dot", "color": LIGHT[mark.colour]}
        found.append({"type": "line", **upright, "x0": mark.at, "x1": mark.at, "line": line})
    for mark in panel.h_marks:
        line = {"width": 1.2, "color": LIGHT[mark.colour]}
        found.append({"type": "line", **across, "y0": mark.at, "y1": mark.at, "line": line})
    return found


def _mark_words(panel: Panel, name: str) -> list[dict[str, Any]]:
    """Words beside marks, one below the other."""
    found = []
    for place, mark in enumerate(mark for mark in panel.v_marks if mark.text):
        right = panel.right_of(mark)
        at = math.log10(mark.at) if panel.x_scale == "log" else mark.at
        found.append(
            _words(label(mark.text, 40), 11, mark.colour, x=at, xref=f"x{name}", y=1.0, yref=f"y{name} domain",
                   xanchor="left" if right else "right", yanchor="top", xshift=3 if right else -3, yshift=-15 * place,
                   bgcolor=BEHIND)
        )  # fmt: skip
    return found


# Heatmaps and surfaces


def _heatmap(drawing: Heatmap) -> dict[str, Any]:
    trace: dict[str, Any] = {
        "type": "heatmap", "z": [_numbers(row, 3) for row in drawing.z], "zmin": 0, "zmax": 100,
        "colorscale": HEAT_SCALE, "xgap": 1, "ygap": 1, "hovertext": drawing.words, "hoverinfo": "text",
        "colorbar": {"thickness": 10, "outlinewidth": 0, "ticksuffix": "%", "len": 0.9, "tickfont": {"size": 11}},
    }  # fmt: skip
    if len(drawing.rows) <= MOST_WRITTEN:
        written = [["" if v is None or v < 0.5 else f"{v:.0f}" for v in row] for row in drawing.z]
        trace |= {"text": written, "texttemplate": "%{text}", "textfont": {"size": 11}}
    return trace


def _heatmap_layout(drawing: Heatmap, left: int) -> dict[str, Any]:
    longest = max((len(name) for name in [*drawing.rows, *drawing.columns]), default=1)
    turned = longest * len(drawing.columns) > 90
    below = 40 + (min(120, 6 * longest) if turned else 14)
    found = _page(min(760, max(230, 38 * len(drawing.rows))) + below + 10, {"l": left, "r": 10, "t": 10, "b": below})
    columns, rows = _ticks(list(enumerate(drawing.columns))), _ticks(list(enumerate(drawing.rows)))
    found["xaxis"] = _axis(drawing.x_title, showgrid=False, tickangle=-60 if turned else 0, **columns)
    found["yaxis"] = _axis(drawing.y_title, showgrid=False, autorange="reversed", **rows)
    return found


def _surfaces(drawing: Relief) -> list[dict[str, Any]]:
    traces: list[dict[str, Any]] = []
    low, cut = drawing.ends
    for index, (name, z) in enumerate(zip(drawing.names, drawing.z, strict=True)):
        scene = f"scene{_suffix(index)}"
        lines = {"show": True, "color": "#ffffff", "width": 1, "start": low, "end": cut, "size": (cut - low) / 12 or 1}
        traces.append(
            {"type": "surface", "scene": scene, "name": label(name, 60), "x": _numbers(drawing.x[index], 4),
             "y": _numbers(drawing.y[index], 4), "z": [_numbers(row, 4) for row in z], "cmin": rounded(low),
             "cmax": rounded(cut), "colorscale": SURFACE_SCALE, "showscale": False, "contours": {"z": lines},
             "lighting": {"ambient": 0.75, "diffuse": 0.5, "specular": 0.08, "roughness": 0.9}}
        )  # fmt: skip
        traces.append(
            {"type": "scatter3d", "scene": scene, "mode": "markers", "name": "the trained weights",
             "x": [0], "y": [0], "z": [rounded(drawing.centers[index])], "hoverinfo": "name+z",
             "marker": {"size": 5, "color": LIGHT["negative"], "line": {"width": 1, "color": "#ffffff"}}}
        )  # fmt: skip
    return traces


def _relief_layout(drawing: Relief, wide: bool) -> dict[str, Any]:
    """Surfaces and then the slice: in a row, or on a phone one below the other."""
    total, (low, cut) = len(drawing.names), drawing.ends
    height = SURFACE_HEIGHT + (0 if wide else SURFACE_HEIGHT * (total - 1) + SLICE_HEIGHT)
    found = _page(height, {"l": 0, "r": 14, "t": 30, "b": 0})
    step = 0.7 / total if wide else SURFACE_HEIGHT / height
    notes = []
    for index, name in enumerate(drawing.names):
        a, b = index * step, (index + 1) * step
        x, y = ([a, b], [0.0, 1.0]) if wide else ([0.0, 1.0], [1 - b, 1 - a])
        found[f"scene{_suffix(index)}"] = {
            "domain": {"x": x, "y": y}, "camera": CAMERA, "dragmode": "orbit",
            "aspectmode": "manual", "aspectratio": {"x": 1, "y": 1, "z": 0.72}, "xaxis": _scene_axis(drawing.x_title),
            "yaxis": _scene_axis(drawing.y_title),
            "zaxis": {**_scene_axis("loss"), "range": [low - 0.04 * (cut - low), cut]},
        }  # fmt: skip
        notes.append(
            _words(f"<b>{label(name, 60)}</b>", 13, "ink", x=x[0] + 0.01, y=y[1], xref="paper", yref="paper",
                   xanchor="left", yanchor="top" if index and not wide else "bottom")
        )  # fmt: skip
    panel, alone = drawing.slice, Panels([drawing.slice])
    across, up = ([0.77, 1.0], [0.2, 0.9]) if wide else ([0.13, 1.0], [48 / height, 1 - total * step - 36 / height])
    found["xaxis"] = _x_axis(panel, alone, 0, 40, False) | {"domain": across}
    found["yaxis"] = _y_axis(panel, alone, 0, True) | {"domain": up}
    notes.append(
        _words(f"<b>{label(panel.title, 60)}</b>", 12, "ink", x=across[0] - 0.04, y=up[1], xref="paper", yref="paper",
               xanchor="left", yanchor="bottom", yshift=7)
    )  # fmt: skip
    return found | {"annotations": notes, "shapes": _shapes(panel, "")}


def _scene_axis(title: str) -> dict[str, Any]:
    return {
        "title": {"text": title, "font": {"size": 11, "color": LIGHT["muted"], "family": FONT}},
        "tickfont": {"size": 10, "color": LIGHT["muted"]},
        "gridcolor": LIGHT["grid"],
        "zerolinecolor": LIGHT["zero"],
        "showbackground": False,
        "nticks": 5,
    }
