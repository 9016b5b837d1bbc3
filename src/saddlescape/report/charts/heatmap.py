"""A ``Heatmap`` as a plotly figure."""

from __future__ import annotations

from typing import Any

from saddlescape.report.charts.style import axis, layout
from saddlescape.report.palette import HEAT_LIGHT
from saddlescape.report.panels import Heatmap
from saddlescape.report.text import label, rounded

SCALE = [[at, shade] for at, shade in zip((0.0, 0.02, 0.15, 0.4, 0.7, 1.0), HEAT_LIGHT, strict=True)]
MOST_WRITTEN = 12


def figure(heatmap: Heatmap) -> dict[str, Any]:
    """``{"data", "layout", "narrow", "legend", "ranges"}``; cells are written out where there are few."""
    rows = len(heatmap.rows)
    written = rows <= MOST_WRITTEN
    longest = max((len(name) for name in [*heatmap.rows, *heatmap.columns]), default=1)
    upright = longest * len(heatmap.columns) > 90
    below = 40 + (min(120, 6 * longest) if upright else 14)
    height = min(760, max(230, 34 * rows)) + below + 10
    trace: dict[str, Any] = {
        "type": "heatmap",
        "z": [[rounded(value, 3) for value in row] for row in heatmap.z],
        "zmin": 0,
        "zmax": 100,
        "colorscale": SCALE,
        "xgap": 1,
        "ygap": 1,
        "hovertext": heatmap.words,
        "hoverinfo": "text",
        "colorbar": {
            "thickness": 10,
            "outlinewidth": 0,
            "ticksuffix": heatmap.unit,
            "len": 0.9,
            "tickfont": {"size": 11},
        },
    }
    if written:
        trace["text"] = [["" if v is None or v < 0.5 else f"{v:.0f}" for v in row] for row in heatmap.z]
        trace["texttemplate"] = "%{text}"
        trace["textfont"] = {"size": 11}

    def laid(left: int) -> dict[str, Any]:
        found = layout(height, {"l": left, "r": 10, "t": 10, "b": below})
        found["xaxis"] = axis(
            heatmap.x_title,
            showgrid=False,
            tickangle=-60 if upright else 0,
            tickvals=list(range(len(heatmap.columns))),
            ticktext=[label(n) for n in heatmap.columns],
        )
        found["yaxis"] = axis(
            "",
            showgrid=False,
            autorange="reversed",
            tickvals=list(range(rows)),
            ticktext=[label(name) for name in heatmap.rows],
        )
        return found

    left = min(150, 18 + 7 * longest)
    return {"data": [trace], "layout": laid(left), "narrow": laid(min(96, left)), "legend": [], "ranges": {}}
