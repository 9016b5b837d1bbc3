"""Drawings as plotly figures: plain dictionaries, so that plotly itself is needed only on the page."""

from __future__ import annotations

from typing import Any

from saddlescape.report.charts import heatmap, panels, surface
from saddlescape.report.panels import Drawing, Heatmap, Relief

__all__ = ["figure"]


def figure(drawing: Drawing) -> dict[str, Any]:
    """The plotly figure of any drawing, with its layout for phones, its legend and its named ranges."""
    if isinstance(drawing, Heatmap):
        return heatmap.figure(drawing)
    return surface.figure(drawing) if isinstance(drawing, Relief) else panels.figure(drawing)
