"""The ends of each class's spectrum: lambda_min, lambda_max, their ratio, beside the class's loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from saddlescape.records.curvature import Curvature
from saddlescape.report.panels import Mark, Panel, Picture, Plate, Series, Value, binned
from saddlescape.report.read import RunData
from saddlescape.report.select import looks, measured, ranked
from saddlescape.report.text import number, percent, short

MOST_NAMED, MOST_POINTS, PARTS = 40, 150, 50
Pick = Callable[[Curvature], Value]

PANELS: tuple[tuple[str, str, Pick], ...] = (
    ("lambda_min", "λmin: how steeply the loss falls away", lambda row: row.lambda_min),
    ("lambda_max", "λmax: the sharpest direction", lambda row: row.lambda_max),
    (
        "ratio",
        "|λmin / λmax|: how much of a saddle, %",
        lambda row: None if row.nonconvexity is None else 100 * row.nonconvexity,
    ),
    ("loss", "The class's own loss", lambda row: row.loss),
    (
        "gauss_newton",
        "Gauss–Newton part of v′Hv at λmin",
        lambda row: row.at_lambda_min.gauss_newton if row.at_lambda_min else None,
    ),
    ("rest", "The rest of v′Hv at λmin", lambda row: row.at_lambda_min.residual_part if row.at_lambda_min else None),
)


def extremes(runs: Sequence[RunData]) -> Plate | None:
    """Six panels over the classes, the most frequent first; hollow where a figure is not settled."""
    known = [run for run in runs if measured(run)]
    if not known:
        return None
    first = known[0]
    seen = {row.label for run in known for row in measured(run)}
    order = [label for label in ranked(first) if label in seen]
    many = len(order) > MOST_POINTS
    ticks = (
        [(float(i), short(first.class_name(c), 14)) for i, c in enumerate(order)] if len(order) <= MOST_NAMED else None
    )
    style, panels = looks(known), []
    for key, title, pick in PANELS:
        series = []
        for index, run in enumerate(known):
            rows = {row.label: row for row in measured(run)}
            values = [pick(rows[label]) if label in rows else None for label in order]
            if not any(value is not None for value in values):
                continue
            look = style[run.name]
            if many:
                x, y, low, high = binned(values, PARTS)
                series.append(Series(run.name, x, y, "points", look.colour, symbol=look.symbol, low=low, high=high))
                continue
            shift = (index - (len(known) - 1) / 2) * min(0.14, 0.6 / len(known))
            here = [rows.get(label) for label in order]
            series.append(
                Series(
                    run.name,
                    [i + shift for i in range(len(order))],
                    values,
                    "points",
                    look.colour,
                    symbol=look.symbol,
                    low=_end(here, key, values, -1),
                    high=_end(here, key, values, 1),
                    hollow=[row is not None and not _settled(row, key) for row in here],
                    words=[_word(run, row, key, value) for row, value in zip(here, values, strict=True)],
                    size=8,
                )
            )
        if series:
            positive = all(v is None or v > 0 for one in series for v in one.y)
            logarithmic = key in ("lambda_max", "loss") and positive
            zero = [] if logarithmic or key in ("lambda_max", "loss") else [Mark(0.0, "", "zero")]
            panels.append(
                Panel(title, series, y_scale="log" if logarithmic else "linear", x_ticks=ticks, h_marks=zero,
                      x_title="" if ticks else "class, the most frequent first", x_range=(-0.6, len(order) - 0.4))
            )  # fmt: skip
    caption = (
        "Every figure is v′Hv of a vector that was found, with its residual as an error bar (mostly too small to be "
        "seen). Hollow: not settled, or negative curvature not proved. λmin splits into the Gauss–Newton part, "
        "which is "
        "never negative for cross-entropy, and the rest, where negative curvature comes from."
    )
    if many:
        caption += f" Each point stands for about {len(order) // PARTS} classes: mean, least and greatest."
    return Plate("extremes", "The ends of the spectrum, class by class", caption,
                 [("", Picture(panels, _text(known), columns=2, height=220))])  # fmt: skip


def _settled(row: Curvature, key: str) -> bool:
    if key == "lambda_min":
        return row.converged_min and (row.lambda_min >= 0 or row.negative_curvature_proved)
    if key == "lambda_max":
        return row.converged_max
    return key == "loss" or (row.converged_min and row.converged_max)


def _end(rows: Sequence[Curvature | None], key: str, values: Sequence[Value], sign: int) -> list[Value] | None:
    """Ends of the error bars of the two eigenvalues; others have none."""
    if key not in ("lambda_min", "lambda_max"):
        return None
    errors = [None if row is None else row.residual_min if key == "lambda_min" else row.residual_max for row in rows]
    return [v if v is None or e is None else v + sign * e for v, e in zip(values, errors, strict=True)]


def _word(run: RunData, row: Curvature | None, key: str, value: Value) -> str:
    if row is None:
        return ""
    unit = " %" if key == "ratio" else ""
    return f"{short(run.class_name(row.label or 0))}: {number(value)}{unit} with {run.title}"


def _text(runs: Sequence[RunData]) -> str:
    told = []
    for run in runs:
        rows = measured(run)
        deepest = min(rows, key=lambda row: row.lambda_min)
        most = max(rows, key=lambda row: row.nonconvexity or 0.0)
        told.append(
            f"{run.name}: the most negative eigenvalue is {number(deepest.lambda_min)}, of class "
            f"{short(run.class_name(deepest.label or 0))}; the greatest ratio is "
            f"{percent(100 * (most.nonconvexity or 0))}, "
            f"of class {short(run.class_name(most.label or 0))}."
        )
    return " ".join(told)
