"""Learning curves: accuracy of each group, and the training loss, over epochs."""

from __future__ import annotations

from collections.abc import Sequence

from saddlescape.report.panels import Mark, Panel, Picture, Plate, Series, Value
from saddlescape.report.read import RunData
from saddlescape.report.select import by_method, looks
from saddlescape.report.text import percent

PANELS = (("head", "Head: test accuracy"), ("mid", "Mid: test accuracy"), ("tail", "Tail: test accuracy"))


def learning(runs: Sequence[RunData]) -> Plate | None:
    """A line a method, mean over seeds with a band from the worst to the best; None where nothing was trained."""
    begun = [run for run in runs if run.epochs]
    if not begun:
        return None
    panels = []
    for key, title in PANELS:
        lines = _lines(begun, lambda run, key=key: [  # type: ignore[misc]
            (run.offset(e.stage) + e.epoch + 1, getattr(e.test, key)) for e in run.tested
        ])  # fmt: skip
        if lines:
            panels.append(Panel(title, lines, x_title="epochs", v_marks=marks(begun), y_range=(0, 103), percent=True))
    if not panels:
        lines = _lines(begun, lambda run: [(run.offset(e.stage) + e.epoch + 1, e.test.accuracy) for e in run.tested])
        if lines:
            panels.append(Panel("Test accuracy", lines, x_title="epochs", v_marks=marks(begun), y_range=(0, 103),
                                percent=True))  # fmt: skip
    lines = _lines(begun, lambda run: [(run.offset(e.stage) + e.epoch + 1, e.train_loss) for e in run.epochs])
    positive = all(value is None or value > 0 for line in lines for value in line.y)
    if lines:
        panels.append(Panel("Training loss, as trained", lines, x_title="epochs",
                            v_marks=marks(begun), y_scale="log" if positive else "linear"))  # fmt: skip
    if not panels:
        return None
    caption = "Accuracy on test images and loss on training images after each epoch."
    if any(len(seeds) > 1 for seeds in by_method(begun).values()):
        caption += " Lines are means over seeds, bands go from the worst seed to the best."
    if any(text == "DRW starts" for run in begun for _, text in run.marks):
        caption += " The loss jumps where deferred re-weighting (DRW) starts, because its weights change there."
    ends = [
        f"{title}: tail {percent(_last(seeds, 'tail'))}, head {percent(_last(seeds, 'head'))} at the end"
        for title, seeds in by_method(begun).items()
    ]
    picture = Picture(panels, "; ".join(ends) + ".", columns=2, height=240)
    return Plate("learning", "Learning curves by group", caption, [("", picture)])


def marks(runs: Sequence[RunData]) -> list[Mark]:
    """What begins when, once for each word and place."""
    found = dict.fromkeys((at, text) for run in runs for at, text in run.marks)
    return [Mark(float(at), text) for at, text in found]


def _lines(runs: Sequence[RunData], pick: object) -> list[Series]:
    style, found = looks(runs), []
    for title, seeds in by_method(runs).items():
        places: dict[float, list[float]] = {}
        for run in seeds:
            for x, y in pick(run):  # type: ignore[operator]
                if y is not None:
                    places.setdefault(float(x), []).append(float(y))
        if not places:
            continue
        xs = sorted(places)
        several = any(len(values) > 1 for values in places.values())
        low: list[Value] | None = [min(places[x]) for x in xs] if several else None
        high: list[Value] | None = [max(places[x]) for x in xs] if several else None
        mean = [sum(places[x]) / len(places[x]) for x in xs]
        found.append(
            Series(title, xs, mean, "line", style[title].colour, style[title].dash, low=low, high=high,
                   markers=len(xs) < 12, size=5)
        )  # fmt: skip
    return found


def _last(runs: Sequence[RunData], key: str) -> Value:
    values = [getattr(run.tested[-1].test, key) for run in runs if run.tested]
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
