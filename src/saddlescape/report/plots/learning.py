"""Learning curves: accuracy of each group, and the training loss, over epochs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from saddlescape.records.metrics import EpochRow
from saddlescape.report.drawing import Figure, Mark, Panel, Panels, Series, Value, log_if_positive, over_seeds
from saddlescape.report.read import GROUPS, RunData
from saddlescape.report.select import by_method, looks

Pick = Callable[[EpochRow], Value]
LOSS = "Training loss, as trained"  # falls, so that there is room for words at its top


def learning(runs: Sequence[RunData]) -> Figure | None:
    """A line a method, mean over seeds with a band from the worst to the best; None where nothing was trained."""
    begun = [run for run in runs if run.epochs]
    of_groups = [(f"{name.capitalize()}: test accuracy", _score(name)) for name in GROUPS]
    panels = _panels(begun, of_groups, True) or _panels(begun, [("Test accuracy", _score("accuracy"))], True)
    panels += _panels(begun, [(LOSS, lambda epoch: epoch.train_loss)], False)
    schedules: list[tuple[str, Pick]] = [("Learning rate", lambda epoch: epoch.lr),
                                         ("SAM's radius rho", lambda epoch: epoch.rho)]  # fmt: skip
    panels += _panels(begun, schedules, False, linear=True)
    if not panels:
        return None
    caption = "Accuracy on test images, loss on training images, and the schedules, epoch by epoch."
    if any(len(seeds) > 1 for seeds in by_method(begun).values()):
        caption += " Lines are means over seeds, bands go from the worst seed to the best."
    if any(text == "DRW starts" for run in begun for _, text in run.marks):
        caption += " The loss jumps where deferred re-weighting (DRW) starts, because its weights change there."
    named = [replace(panel, v_marks=marks(begun, named=panel.title == LOSS)) for panel in panels]
    drawing = Panels(named, columns=3, height=180)
    return Figure("learning", "Learning curves by group", caption, [("", drawing)], folded=True)


def marks(runs: Sequence[RunData], named: bool = True) -> list[Mark]:
    """What begins when, once for each word and place; one panel of several has the words (``named``)."""
    found = dict.fromkeys((at, text) for run in runs for at, text in run.marks)
    return [Mark(float(at), text if named else "") for at, text in found]


def _from_zero(series: Sequence[Series]) -> tuple[float, float]:
    return 0.0, 1.06 * (max(y for one in series for y in one.y if y is not None) or 1.0)


def _score(name: str) -> Pick:
    return lambda epoch: getattr(epoch.test, name, None)


def _panels(
    runs: Sequence[RunData], wanted: Sequence[tuple[str, Pick]], in_percent: bool, linear: bool = False
) -> list[Panel]:
    """A panel for each (title, pick) of which a value is known."""
    style, panels = looks(runs), []
    for title, pick in wanted:
        lines = []
        for method, seeds in by_method(runs).items():
            points = [(run.offset(e.stage) + e.epoch + 1, pick(e)) for run in seeds for e in run.epochs]
            few = len({x for x, y in points if y is not None}) < 12
            lines.append(over_seeds(method, points, **style[method] | {"symbol": "circle"}, markers=few, size=5))
        series = [line for line in lines if line]
        if series:
            panels.append(
                Panel(title, series, x_title="epochs", percent=in_percent,
                      y_range=(0, 103) if in_percent else _from_zero(series) if linear else None,
                      y_scale="linear" if in_percent or linear else log_if_positive(series))
            )  # fmt: skip
    return panels
