"""What all charts share: fonts, axes, margins."""

from __future__ import annotations

from typing import Any

from saddlescape.report.palette import LIGHT

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


def colour(name: str) -> str:
    return LIGHT[name]


def faint(name: str, alpha: float = 0.18) -> str:
    """A translucent fill. The page exchanges it with its colour, so it is written ``#rrggbbaa``."""
    return f"{LIGHT[name]}{round(alpha * 255):02x}"


def axis(title: str = "", **more: Any) -> dict[str, Any]:
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


def layout(height: int, margin: dict[str, int], **more: Any) -> dict[str, Any]:
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
