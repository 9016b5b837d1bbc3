"""Accuracy of all, head, mid and tail for each method, with what was published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saddlescape.report.drawing import Figure, Panel, Panels, Series
from saddlescape.report.palette import look
from saddlescape.report.table import mark, published_name
from saddlescape.report.text import clean, percent

PANELS = (("acc", "All test images"), ("head", "Head"), ("mid", "Mid"), ("tail", "Tail"))


def groups(table: dict[str, Any]) -> Figure | None:
    """A dot a method in four panels, from a table of ``report.table``."""
    rows = table["rows"]
    if not rows:
        return None
    names = [clean(published_name(row["method"])) + mark(row) for row in rows]
    ticks = [(float(len(rows) - 1 - i), name) for i, name in enumerate(names)]
    panels = []
    for key, title in PANELS:
        series = []
        for i, row in enumerate(rows):
            cell, place = row["last"][key], float(len(rows) - 1 - i)
            if cell["mean"] is not None:
                spread = cell["std"] or 0.0
                series.append(
                    Series(names[i], [cell["mean"]], [place], "points", **look(i), size=11,
                           words=[f"{names[i]}: {percent(cell['mean'])}"
                                  + (f" ± {spread:.1f}" if cell["std"] is not None else "")],
                           low=[cell["mean"] - spread], high=[cell["mean"] + spread], legend=False)
                )  # fmt: skip
        known = [(row["published"][key]["mean"], float(len(rows) - 1 - i)) for i, row in enumerate(rows)
                 if key in row["published"] and row["published"][key]["mean"] is not None]  # fmt: skip
        if known:
            series.append(
                Series("published", [x for x, _ in known], [y for _, y in known], "points", "muted", symbol="diamond",
                       hollow=[True] * len(known), size=10,
                       words=[f"published: {percent(x)}" for x, _ in known])
            )  # fmt: skip
        if series:
            panels.append(
                Panel(title, series, y_ticks=ticks, x_title="% right", x_range=_room(series),
                      y_range=(-0.6, len(rows) - 0.4))
            )  # fmt: skip
    caption = "Percent right after the last epoch, mean over seeds; a bar is one standard deviation between seeds."
    drawing = Panels(panels, columns=len(panels), height=90 + 34 * len(rows), shared_y=True)
    return Figure("groups", "Accuracy by group", caption, [("", drawing)]) if panels else None


def _room(series: Sequence[Series]) -> tuple[float, float]:
    """At least 6 points wide, so that a difference of nothing does not look like one."""
    values = [v for one in series for row in (one.x, one.low or [], one.high or []) for v in row if v is not None]
    low, high = min(values), max(values)
    room = max(0.08 * (high - low), (6 - (high - low)) / 2)
    return max(low - room, -0.6), min(high + room, 100.6)
