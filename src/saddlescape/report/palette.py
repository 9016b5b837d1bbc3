"""Colours that people with colour-blind eyes tell apart (Okabe and Ito 2008), by what they stand for, light and dark.

Charts are built with the light ones and are ordinary plotly figures; the page exchanges them for their dark partners.
Beside the paper, ink, muted, mark and negative have a contrast of at least 4.5 (they are words too), all that data are
drawn with 3 (WCAG 2.2, 1.4.3 and 1.4.11).
"""

from __future__ import annotations

LIGHT = {
    "head": "#0072b2",
    "mid": "#009e73",
    "tail": "#d55e00",
    "run0": "#3d4557",
    "run1": "#c0398b",
    "run2": "#a17c00",
    "run3": "#2c8fc9",
    "run4": "#6f4fc8",
    "run5": "#7a3b12",
    "run6": "#2f8f84",
    "run7": "#8a8f9c",
    "ink": "#1f2430",
    "muted": "#667085",
    "grid": "#e7e9ee",
    "zero": "#b5bac6",
    "paper": "#ffffff",
    "negative": "#cc3311",
    "mark": "#6a7385",
}
DARK = {
    "head": "#56b4e9",
    "mid": "#2bc79a",
    "tail": "#f58a3c",
    "run0": "#d5dae6",
    "run1": "#f08cc4",
    "run2": "#e3c14a",
    "run3": "#9fd8ff",
    "run4": "#b3a1ff",
    "run5": "#d79a6c",
    "run6": "#8fd6cd",
    "run7": "#9097a6",
    "ink": "#e8eaf0",
    "muted": "#9aa3b5",
    "grid": "#2a3040",
    "zero": "#4b5468",
    "paper": "#161a23",
    "negative": "#ff7a66",
    "mark": "#98a1b3",
}
HEAT_LIGHT = ("#f3f6fa", "#dfe9f3", "#a9cbe5", "#5a9fcf", "#1f6fae", "#08306b")
HEAT_DARK = ("#1b2130", "#1f2b40", "#24476e", "#2f74b5", "#63aee8", "#cfe8ff")
"""One hue that goes from the paper's colour to the ink's: read alike by all eyes and in grey."""

RUNS = 8
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x", "star", "hexagon")


def run_colour(index: int) -> str:
    return f"run{index % RUNS}"


def dash(index: int) -> str:
    return DASHES[index % len(DASHES)]


def symbol(index: int) -> str:
    return SYMBOLS[index % len(SYMBOLS)]


def exchange() -> dict[str, str]:
    """Light colour -> dark colour, for the page; the light ones are all different, so nothing is mistaken."""
    return {LIGHT[name]: DARK[name] for name in LIGHT} | dict(zip(HEAT_LIGHT, HEAT_DARK, strict=True))
