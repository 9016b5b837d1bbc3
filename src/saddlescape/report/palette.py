"""Colours that colour-blind eyes can distinguish (Okabe and Ito 2008), by what they stand for, light and dark.

Charts are built with the light ones and are ordinary plotly figures; the page exchanges them for their dark partners.
Beside the paper, ink, muted, mark and negative have a contrast of at least 4.5 (they are words too), all that data are
drawn with 3 (WCAG 2.2, 1.4.3 and 1.4.11).
"""

from __future__ import annotations

from typing import Any

COLOURS = {  # light, dark
    "head": ("#0072b2", "#56b4e9"),
    "mid": ("#009e73", "#2bc79a"),
    "tail": ("#d55e00", "#f58a3c"),
    "run0": ("#3d4557", "#d5dae6"),
    "run1": ("#c0398b", "#f08cc4"),
    "run2": ("#a17c00", "#e3c14a"),
    "run3": ("#2c8fc9", "#9fd8ff"),
    "run4": ("#6f4fc8", "#b3a1ff"),
    "run5": ("#7a3b12", "#d79a6c"),
    "run6": ("#2f8f84", "#8fd6cd"),
    "run7": ("#8a8f9c", "#9097a6"),
    "ink": ("#1f2430", "#e8eaf0"),
    "muted": ("#667085", "#9aa3b5"),
    "grid": ("#e7e9ee", "#2a3040"),
    "zero": ("#b5bac6", "#4b5468"),
    "paper": ("#ffffff", "#161a23"),
    "negative": ("#cc3311", "#ff7a66"),
    "mark": ("#6a7385", "#98a1b3"),
}
LIGHT = {name: light for name, (light, _) in COLOURS.items()}
DARK = {name: dark for name, (_, dark) in COLOURS.items()}
HEAT_LIGHT = ("#f3f6fa", "#dfe9f3", "#a9cbe5", "#5a9fcf", "#1f6fae", "#08306b")
HEAT_DARK = ("#1b2130", "#1f2b40", "#24476e", "#2f74b5", "#63aee8", "#cfe8ff")
"""One hue that goes from the paper's colour to the ink's: read alike by all eyes and in grey."""

RUNS = 8
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star", "hexagon")


def look(index: int, variant: int = 0) -> dict[str, Any]:
    """``colour``, ``dash`` and ``symbol`` of a method, optimiser or class; a variant has another dash."""
    return {
        "colour": f"run{index % RUNS}", "dash": DASHES[variant % len(DASHES)], "symbol": SYMBOLS[index % len(SYMBOLS)],
    }  # fmt: skip


def exchange() -> dict[str, str]:
    """Light colour -> dark colour, for the page. All light ones differ, so each has one partner."""
    return {LIGHT[name]: DARK[name] for name in LIGHT} | dict(zip(HEAT_LIGHT, HEAT_DARK, strict=True))
