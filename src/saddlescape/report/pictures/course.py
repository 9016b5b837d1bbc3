"""Curvature over training: lambda_min, lambda_max, their ratio and the loss, of the groups and of each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from saddlescape.records.course import Moment
from saddlescape.report.groups import GROUPS
from saddlescape.report.palette import dash
from saddlescape.report.panels import Mark, Panel, Picture, Plate, Series, Value
from saddlescape.report.pictures.learning import marks
from saddlescape.report.read import RunData
from saddlescape.report.select import looks, telling
from saddlescape.report.text import number, short

MOST = 24
PANELS: tuple[tuple[str, str, Callable[[Moment], Value]], ...] = (
    ("lambda_min", "λmin", lambda row: row.lambda_min),
    ("lambda_max", "λmax", lambda row: row.lambda_max),
    ("ratio", "|λmin / λmax|, %", lambda row: None if row.nonconvexity is None else 100 * row.nonconvexity),
    ("loss", "The class's own loss", lambda row: row.loss),
    ("gauss_newton", "Gauss–Newton part of v′Hv at λmin", lambda row: row.gauss_newton),
)  # fmt: skip


def course(runs: Sequence[RunData]) -> Plate | None:
    """Means of the groups, and each class to choose; hollow points where one was not settled."""
    known = [run for run in runs if run.course]
    if not known:
        return None
    variants = []
    by_group = _panels(known, lambda row: row.group if row.label is None else None, list(GROUPS))
    if by_group:
        variants.append(("means of head, mid and tail", Picture(by_group, _text(known), columns=2, height=240)))
    labels = list(dict.fromkeys(row.label for run in known for row in run.course if row.label is not None))
    for label in telling(known[0], labels, MOST):
        panels = _panels(known, lambda row, label=label: None if row.label != label else "", [""])  # type: ignore[misc]
        if panels:
            name = known[0].class_name(label)
            text = " ".join(_class_text(run, label) for run in known)
            variants.append((f"class {name}", Picture(panels, text, columns=2, height=240)))
    if not variants:
        return None
    loss = known[0].course_settings.get("loss", "ce")
    images = known[0].course_settings.get("samples")
    caption = (
        "Of the Hessian of each class's own loss "
        f"({'cross-entropy on the raw logits' if loss == 'ce' else 'the training loss'}"
        f"{f', at most {images} images a class' if images else ''}) at saved checkpoints. Hollow points are not "
        "settled. "
        "Curvature of cross-entropy grows with the loss, so runs are best compared where their losses are equal."
    )
    return Plate("course", "Curvature over training", caption, variants, "what is shown")


def _panels(runs: Sequence[RunData], key_of: Callable[[Moment], str | None], keys: Sequence[str]) -> list[Panel]:
    style, panels = looks(runs), []
    for what, title, pick in PANELS:
        series = []
        for number_, run in enumerate(runs):
            for key in keys:
                rows = sorted((row for row in run.course if key_of(row) == key), key=lambda row: (row.stage, row.epoch))
                values = [pick(row) for row in rows]
                if not any(value is not None for value in values):
                    continue
                look = style[run.name]
                series.append(
                    Series(f"{key}, {run.name}" if key else run.name,
                           [float(run.offset(row.stage) + row.epoch) for row in rows], values, "line",
                           key or look.colour, dash(number_) if key else look.dash, markers=True, size=5,
                           hollow=[not row.converged for row in rows])
                )  # fmt: skip
        if series:
            positive = all(v is None or v > 0 for one in series for v in one.y)
            zero = [Mark(0.0, "", "zero")] if what == "lambda_min" else []
            panels.append(
                Panel(title, series, x_title="epochs", v_marks=marks(runs), h_marks=zero,
                      y_scale="log" if what in ("lambda_max", "loss") and positive else "linear")
            )  # fmt: skip
    return panels


def _text(runs: Sequence[RunData]) -> str:
    told = []
    for run in runs:
        for group in GROUPS:
            rows = [row for row in run.course if row.label is None and row.group == group]
            if len(rows) > 1:
                told.append(
                    f"{run.name}, {group}: λmin from {number(rows[0].lambda_min)} to {number(rows[-1].lambda_min)}, "
                    f"ratio from {number(_hundred(rows[0]), 2)} % to {number(_hundred(rows[-1]), 2)} %."
                )
    return " ".join(told)


def _hundred(row: Moment) -> Value:
    return None if row.nonconvexity is None else 100 * row.nonconvexity


def _class_text(run: RunData, label: int) -> str:
    rows = [row for row in run.course if row.label == label]
    if not rows:
        return f"{run.name}: not measured."
    return (
        f"{run.name}, class {short(run.class_name(label))}: λmin from {number(rows[0].lambda_min)} after epoch "
        f"{rows[0].epoch} to {number(rows[-1].lambda_min)} after epoch {rows[-1].epoch}."
    )
