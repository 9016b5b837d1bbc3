"""How many images a class has, beside how often its test images are recognised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from saddlescape.errors import counted
from saddlescape.report.drawing import Figure, Panel, Panels, Series, Value, binned, over_seeds
from saddlescape.report.read import RunData
from saddlescape.report.select import by_method, looks, ranked
from saddlescape.report.text import percent, short

MOST_NAMED, MOST_BARS, BINS = 40, 150, 50


def classes(runs: Sequence[RunData]) -> Figure | None:
    """Two panels over the classes, the most frequent first; None where no run is finished."""
    done = [run for run in runs if run.result]
    if not done:
        return None
    first = done[0]
    order = ranked(first)
    many = len(order) > MOST_BARS
    ticks = [(float(i), short(first.classes[c], 18)) for i, c in enumerate(order)] if len(order) <= MOST_NAMED else None
    x_title = "class, the most frequent first" if ticks is None else ""
    edges = (-0.6, len(order) - 0.4)
    drawing = Panels(
        [
            Panel("Training images", _counts(first, order, many), y_scale="log", x_ticks=ticks, x_range=edges),
            Panel("Test images recognised", _scores(done, first, order, many), x_title=x_title, x_ticks=ticks,
                  x_range=edges, y_range=(0, 103), percent=True),
        ],
        height=150, shared_x=True,
    )  # fmt: skip
    caption = "Training images of each class, and the percentage of its test images that are recognised."
    if many:
        caption += (
            f" With {len(order):,} classes, each point stands for about {len(order) // BINS} neighbours: their mean, "
            "and a bar from the least to the greatest."
        )
    elif any(len(seeds) > 1 for seeds in by_method(done).values()):
        caption += " Points are means over seeds, bars go from the worst seed to the best."
    return Figure("classes", "Class counts and class-wise accuracy", caption, [("", drawing)])


def _counts(run: RunData, order: Sequence[int], many: bool) -> list[Series]:
    counts: list[Value] = [float(run.counts[label]) or None for label in order]
    if many:
        return [Series("training images", **binned(counts, BINS), colour="muted", legend=False)]
    found = []
    for group, members in (run.groups or {"": list(order)}).items():
        places = [i for i, label in enumerate(order) if label in set(members)]
        if places:
            words = [f"{run.classes[order[i]]}: {counted(run.counts[order[i]], 'training image')}" for i in places]
            found.append(
                Series(group or "training images", [float(i) for i in places], [counts[i] for i in places], "bars",
                       group or "muted", words=words, bar_width=0.8, legend=bool(group))
            )  # fmt: skip
    return found


def _scores(runs: Sequence[RunData], first: RunData, order: Sequence[int], many: bool) -> list[Series]:
    style, found = looks(runs), []
    methods = by_method(runs)
    for index, (title, seeds) in enumerate(methods.items()):
        alike = [run for run in seeds if run.classes == first.classes]
        shift = 0.0 if many else (index - (len(methods) - 1) / 2) * min(0.12, 0.6 / len(methods))
        points = [(i + shift, run.per_class[label]) for run in alike for i, label in enumerate(order)]
        series = over_seeds(title, points, kind="points", **style[title] | {"dash": "solid"}, size=9)
        if series is None:
            continue
        at = {round(x or 0.0): y for x, y in zip(series.x, series.y, strict=True)}
        if many:
            bins = binned([at.get(i) for i in range(len(order))], BINS)
            series = Series(title, **bins, kind="points", colour=series.colour, symbol=series.symbol)
        else:
            words = [f"{first.classes[order[i]]}: {percent(mean)} with {title}" for i, mean in at.items()]
            series = replace(series, words=words)
        found.append(series)
    return found
