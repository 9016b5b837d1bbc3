"""The ends of each class's spectrum: lambda_min, lambda_max, their ratio, beside the class's loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from saddlescape.records.curvature import Curvature
from saddlescape.report.drawing import Figure, Mark, Panel, Panels, Series, Value, binned, log_if_positive
from saddlescape.report.read import RunData
from saddlescape.report.select import looks, ranked, ratio
from saddlescape.report.text import number, short

MOST_NAMED, MOST_POINTS, BINS = 40, 150, 50


def _both_settled(row: Curvature) -> bool:
    return row.converged_min and row.converged_max


class Quantity(NamedTuple):
    """What a panel shows of a class. ``error``: half an error bar. ``log``: where all values are positive."""

    title: str
    pick: Callable[[Curvature], Value]
    settled: Callable[[Curvature], bool] = _both_settled
    error: Callable[[Curvature], Value] | None = None
    log: bool = False
    unit: str = ""


PANELS = (
    Quantity("λmin: steepest way down", lambda row: row.lambda_min,
             lambda row: row.converged_min and (row.lambda_min >= 0 or row.negative_curvature_proved),
             lambda row: row.residual_min),
    Quantity("λmax: sharpest direction", lambda row: row.lambda_max, lambda row: row.converged_max,
             lambda row: row.residual_max, log=True),
    Quantity("|λmin/λmax|, %", ratio, unit=" %"),
    Quantity("The class's own loss", lambda row: row.loss, lambda row: True, log=True),
    Quantity("Gauss–Newton part at λmin", lambda row: getattr(row.at_lambda_min, "gauss_newton", None)),
    Quantity("The rest at λmin", lambda row: getattr(row.at_lambda_min, "residual_part", None)),
)  # fmt: skip


def extremes(runs: Sequence[RunData]) -> Figure | None:
    """Six panels over the classes, the most frequent first; hollow where a figure is not settled."""
    known = [run for run in runs if run.measured]
    if not known:
        return None
    first = known[0]
    seen = {row.label for run in known for row in run.measured}
    order = [label for label in ranked(first) if label in seen]
    ticks = (
        [(float(i), short(first.class_name(c), 14)) for i, c in enumerate(order)] if len(order) <= MOST_NAMED else None
    )
    panels = []
    for what in PANELS:
        series = [one for index in range(len(known)) if (one := _series(known, index, what, order))]
        if series:
            panels.append(
                Panel(what.title, series, y_scale=log_if_positive(series) if what.log else "linear", x_ticks=ticks,
                      h_marks=[] if what.log else [Mark(0.0, "", "zero")],
                      x_title="" if ticks else "class, the most frequent first", x_range=(-0.6, len(order) - 0.4))
            )  # fmt: skip
    caption = (
        "Each value is v′Hv of a vector that was found; its residual is the error bar (mostly too small to see). "
        "Hollow: not settled, or negative curvature not proved. The Gauss–Newton part is never negative for "
        "cross-entropy; negative curvature comes from the rest."
    )
    if len(order) > MOST_POINTS:
        caption += f" Each point stands for about {len(order) // BINS} classes: mean, least and greatest."
    drawing = Panels(panels, columns=3, height=175)
    return Figure("extremes", "The ends of the spectrum, class by class", caption, [("", drawing)], folded=True)


def _series(runs: Sequence[RunData], index: int, what: Quantity, order: Sequence[int]) -> Series | None:
    """One run's points of one panel; None where no value is known."""
    run = runs[index]
    by_label = {row.label: row for row in run.measured}
    rows = [by_label.get(label) for label in order]
    values = [what.pick(row) if row else None for row in rows]
    if not any(value is not None for value in values):
        return None
    look = looks(runs)[run.name] | {"dash": "solid"}
    if len(order) > MOST_POINTS:
        return Series(run.name, **binned(values, BINS), kind="points", **look)
    shift = (index - (len(runs) - 1) / 2) * min(0.14, 0.6 / len(runs))
    ends: dict[str, Any] = {}
    if what.error:
        errors = [what.error(row) if row else None for row in rows]
        for name, sign in (("low", -1), ("high", 1)):
            ends[name] = [v if v is None or e is None else v + sign * e for v, e in zip(values, errors, strict=True)]
    words = [
        f"{short(run.class_name(row.label))}: {number(value)}{what.unit} with {run.title}" if row else ""
        for row, value in zip(rows, values, strict=True)
    ]
    hollow = [row is not None and not what.settled(row) for row in rows]
    x = [i + shift for i in range(len(order))]
    return Series(run.name, x, values, "points", **look, **ends, hollow=hollow, words=words, size=8)
