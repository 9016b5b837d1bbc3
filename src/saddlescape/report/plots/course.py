"""Curvature over training: lambda_min, lambda_max, their ratio and the loss, of the groups and of each class."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from saddlescape.records.course import GroupMoment, Moment
from saddlescape.report.drawing import Figure, Mark, Panel, Panels, Series, Value, log_if_positive
from saddlescape.report.palette import look as look_of
from saddlescape.report.plots.learning import marks
from saddlescape.report.read import GROUPS, RunData
from saddlescape.report.select import both_ends, looks, ratio

MOST = 24
PANELS: tuple[tuple[str, Callable[[Moment | GroupMoment], Value]], ...] = (
    ("λmin", lambda row: row.lambda_min),
    ("λmax", lambda row: row.lambda_max),
    ("|λmin/λmax|, %", ratio),
    ("The class's own loss", lambda row: row.loss),
)
LOG = ("λmax", "The class's own loss")


def course(runs: Sequence[RunData]) -> Figure | None:
    """Means of the groups, and each class to choose; hollow points where one was not settled."""
    known = [run for run in runs if run.moments]
    if not known:
        return None
    settings = known[0].course.settings if known[0].course else {}
    variants = [("means of head, mid and tail", _drawing(known, GROUPS))]
    labels = list(dict.fromkeys(row.label for run in known for row in run.moments if row.label is not None))
    for label in both_ends(known[0], labels, MOST):
        variants.append((f"class {known[0].class_name(label)}", _drawing(known, [label])))
    variants = [(name, drawing) for name, drawing in variants if drawing.panels]
    if not variants:
        return None
    loss = settings.get("loss", "ce")
    images = settings.get("samples")
    caption = (
        "Of the Hessian of each class's own loss "
        f"({'cross-entropy on the raw logits' if loss == 'ce' else 'the training loss'}"
        f"{f', at most {images} images a class' if images else ''}) at saved checkpoints. Hollow points are not "
        "settled. Curvature of cross-entropy grows with the loss, so runs are best compared where their losses are "
        "equal."
    )
    return Figure("course", "Curvature over training", caption, variants, "what is shown")


def _of(run: RunData, key: int | str) -> list[Moment | GroupMoment]:
    """The moments of a class (its label) or of a group's mean (its name), in order."""
    rows = [row for row in run.moments if (row.group if row.label is None else row.label) == key]
    return sorted(rows, key=lambda row: (row.stage, row.epoch))


def _drawing(runs: Sequence[RunData], keys: Sequence[int | str]) -> Panels:
    style = looks(runs)
    panels: list[Panel] = []
    for title, pick in PANELS:
        series = []
        for index, run in enumerate(runs):
            for key in keys:
                rows = _of(run, key)
                look = style[run.name] | {"symbol": "circle"}
                name = run.name
                if isinstance(key, str):
                    look, name = {"colour": key, "dash": look_of(0, index)["dash"]}, f"{key}, {run.name}"
                values = [pick(row) for row in rows]
                if any(value is not None for value in values):
                    x = [float(run.offset(row.stage) + row.epoch) for row in rows]
                    hollow = [not row.converged for row in rows]
                    series.append(Series(name, x, values, **look, markers=True, size=5, hollow=hollow))
        if series:
            panels.append(
                Panel(title, series, x_title="epochs", v_marks=marks(runs, named=not panels),
                      h_marks=[Mark(0.0, "", "zero")] if title == "λmin" else [],
                      y_scale=log_if_positive(series) if title in LOG else "linear")
            )  # fmt: skip
    return Panels(panels, columns=2, height=200)
