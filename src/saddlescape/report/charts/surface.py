"""A ``Relief`` as a plotly figure: surfaces side by side, on a phone one below the other."""

from __future__ import annotations

from typing import Any

from saddlescape.report.charts.style import FONT, layout
from saddlescape.report.palette import LIGHT
from saddlescape.report.panels import Relief
from saddlescape.report.text import label, rounded

# Even in lightness, so read alike by all eyes.
SCALE = "Viridis"
CAMERA = {"eye": {"x": 1.45, "y": -1.35, "z": 0.95}, "center": {"x": 0, "y": 0, "z": -0.12}}
FARTHER = {**CAMERA, "eye": {"x": 1.85, "y": -1.72, "z": 1.2}}  # on a phone, so that the axes' names are not cut off
HEIGHT = 430


def figure(relief: Relief) -> dict[str, Any]:
    """``{"data", "layout", "narrow", "legend", "ranges"}``."""
    traces: list[dict[str, Any]] = []
    for index, (x, y, z, center, cut) in enumerate(
        zip(relief.x, relief.y, relief.z, relief.centers, relief.cuts, strict=True)
    ):
        scene = f"scene{'' if index == 0 else index + 1}"
        low = min(value for row in z for value in row if value is not None)
        traces.append(
            {"type": "surface", "scene": scene, "name": label(relief.names[index], 60),
             "x": [rounded(v) for v in x], "y": [rounded(v) for v in y],
             "z": [[rounded(v) for v in row] for row in z], "cmin": rounded(low), "cmax": rounded(cut),
             "colorscale": SCALE, "showscale": False,
             "contours": {"z": {"show": True, "color": "#ffffff", "width": 1, "start": low, "end": cut,
                                "size": (cut - low) / 12 or 1}},
             "lighting": {"ambient": 0.75, "diffuse": 0.5, "specular": 0.08, "roughness": 0.9}}
        )  # fmt: skip
        traces.append(
            {"type": "scatter3d", "scene": scene, "mode": "markers", "name": "the trained weights",
             "x": [0], "y": [0], "z": [rounded(center)], "hoverinfo": "name+z",
             "marker": {"size": 5, "color": LIGHT["negative"], "line": {"width": 1, "color": "#ffffff"}}}
        )  # fmt: skip
    return {
        "data": traces,
        "layout": _layout(relief, side_by_side=True),
        "narrow": _layout(relief, side_by_side=False),
        "legend": [],
        "ranges": {},
    }


def _layout(relief: Relief, *, side_by_side: bool) -> dict[str, Any]:
    total = len(relief.names)
    found = layout(HEIGHT if side_by_side else HEIGHT * total, {"l": 0, "r": 0, "t": 30, "b": 0})
    notes = []
    for index, name in enumerate(relief.names):
        a, b = index / total, (index + 1) / total
        domain: dict[str, list[float]] = (
            {"x": [a, b], "y": [0, 1]} if side_by_side else {"x": [0, 1], "y": [1 - b, 1 - a]}
        )
        low = min(value for row in relief.z[index] for value in row if value is not None)
        found[f"scene{'' if index == 0 else index + 1}"] = {
            "domain": domain,
            "camera": CAMERA if side_by_side else FARTHER,
            "dragmode": "orbit",
            "aspectmode": "manual",
            "aspectratio": {"x": 1, "y": 1, "z": 0.72},
            "xaxis": _axis(relief.x_title),
            "yaxis": _axis(relief.y_title),
            "zaxis": {**_axis("loss"), "range": [low - 0.04 * (relief.cuts[index] - low), relief.cuts[index]]},
        }
        notes.append(
            {"text": f"<b>{label(name, 60)}</b>", "x": domain["x"][0] + 0.01, "y": domain["y"][1], "xref": "paper",
             "yref": "paper", "xanchor": "left", "yanchor": "top" if index and not side_by_side else "bottom",
             "showarrow": False, "font": {"size": 13, "color": LIGHT["ink"]}}
        )  # fmt: skip
    return {**found, "annotations": notes}


def _axis(title: str) -> dict[str, Any]:
    return {
        "title": {"text": title, "font": {"size": 11, "color": LIGHT["muted"], "family": FONT}},
        "tickfont": {"size": 10, "color": LIGHT["muted"]},
        "gridcolor": LIGHT["grid"],
        "zerolinecolor": LIGHT["zero"],
        "showbackground": False,
        "nticks": 5,
    }
