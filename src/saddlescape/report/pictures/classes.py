"""How many images a class has, beside how often its test images are recognised."""

from __future__ import annotations

from collections.abc import Sequence

from saddlescape.report.panels import Panel, Picture, Plate, Series, Value, binned
from saddlescape.report.read import RunData
from saddlescape.report.select import by_method, looks, ranked
from saddlescape.report.text import count, listed, number, percent, short

MOST_NAMED, MOST_BARS, PARTS = 40, 150, 50


def classes(runs: Sequence[RunData]) -> Plate | None:
    """Two panels over the classes, the most frequent first; None where no run is finished."""
    done = [run for run in runs if run.result]
    if not done:
        return None
    first = done[0]
    order = ranked(first)
    many = len(order) > MOST_BARS
    series = [*_counts(first, order, many)]
    scores = _scores(done, first, order, many)
    ticks = [(float(i), short(first.classes[c], 18)) for i, c in enumerate(order)] if len(order) <= MOST_NAMED else None
    x_title = "class, the most frequent first" if ticks is None else ""
    edges = (-0.6, len(order) - 0.4)
    picture = Picture(
        [
            Panel("Training images", series, y_scale="log", x_ticks=ticks, x_range=edges),
            Panel("Test images recognised", scores, x_title=x_title, x_ticks=ticks, x_range=edges, y_range=(0, 103),
                  percent=True),
        ],
        _words(done, first, order), height=230, shared_x=True,
    )  # fmt: skip
    several = any(len(seeds) > 1 for seeds in by_method(done).values())
    caption = "Above, the training images of each class; below, the percentage of its test images that are recognised."
    if many:
        caption += (
            f" With {len(order):,} classes, each point stands for about {len(order) // PARTS} neighbours: their mean, "
        )
        caption += "and a bar from the least to the greatest."
    elif several:
        caption += " Points are means over seeds, bars go from the worst seed to the best."
    return Plate("classes", "Class counts and class-wise accuracy", caption, [("", picture)])


def _counts(run: RunData, order: Sequence[int], many: bool) -> list[Series]:
    counts: list[Value] = [float(run.counts[label]) or None for label in order]
    if many:
        x, mean, low, high = binned(counts, PARTS)
        return [Series("training images", x, mean, "line", "muted", low=low, high=high, legend=False)]
    found = []
    groups = run.groups or {"": list(range(len(order)))}
    for group, members in groups.items():
        places = [i for i, label in enumerate(order) if label in set(members)]
        if places:
            words = [f"{run.classes[order[i]]}: {count(run.counts[order[i]], 'training image')}" for i in places]
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
        if not alike:
            continue
        values = [[run.per_class[label] for label in order] for run in alike]
        mean = [_mean([row[i] for row in values]) for i in range(len(order))]
        look = style[title]
        if many:
            at, middle, least, greatest = binned(mean, PARTS)
            found.append(Series(title, at, middle, "points", look.colour, symbol=look.symbol, low=least, high=greatest))
            continue
        shift = (index - (len(methods) - 1) / 2) * min(0.12, 0.6 / len(methods))
        low = [_least([row[i] for row in values]) for i in range(len(order))] if len(alike) > 1 else None
        high = [_greatest([row[i] for row in values]) for i in range(len(order))] if len(alike) > 1 else None
        words = [f"{first.classes[label]}: {percent(mean[i])} with {title}" for i, label in enumerate(order)]
        x = [i + shift for i in range(len(order))]
        found.append(
            Series(title, x, mean, "points", look.colour, symbol=look.symbol, low=low, high=high, words=words, size=9)
        )
    return found


def _mean(values: Sequence[Value]) -> Value:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _least(values: Sequence[Value]) -> Value:
    return min((value for value in values if value is not None), default=None)


def _greatest(values: Sequence[Value]) -> Value:
    return max((value for value in values if value is not None), default=None)


def _words(runs: Sequence[RunData], first: RunData, order: Sequence[int]) -> str:
    largest, smallest = first.counts[order[0]], first.counts[order[-1]]
    told = [
        f"{run.title}: {percent(run.per_class[order[0]])} of the most frequent class, "
        f"{percent(run.per_class[order[-1]])} of the rarest"
        for run in {run.title: run for run in reversed(runs)}.values()
        if run.classes == first.classes
    ]
    return (
        f"Training images fall from {number(largest, 6)} in class {short(first.classes[order[0]])} to "
        f"{number(smallest, 6)} in class {short(first.classes[order[-1]])}. Recognised are: {listed(told)}."
    )
