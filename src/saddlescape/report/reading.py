"""The plain-language reading of a set of runs, by stated rules from figures to sentences.

``RULES``, which the page prints, are the rules: when a class sits on a saddle, which runs are compared, when two
accuracies differ. Nothing else is said, and a measurement that is missing is named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Literal, NamedTuple

import numpy as np

from saddlescape.errors import counted
from saddlescape.published import recipes
from saddlescape.records.course import GroupMoment, Moment
from saddlescape.records.curvature import Curvature
from saddlescape.report.calibration import calibration
from saddlescape.report.read import GROUPS, RunData
from saddlescape.report.select import by_method, comparable, in_common, pairs, ranked, ratio, tail_class
from saddlescape.report.table import DATASETS, spread
from saddlescape.report.text import clean, listed, number, percent, points, short

SADDLE, DEEP = 0.02, 0.10  # |lambda_min / lambda_max| from which on a class is called a saddle, and a deep one
LOSSES_DIFFER, LOSSES_EQUAL = 1.5, 1.2
Tone = Literal["finding", "good", "bad", "unknown", "note"]

RULES = (
    "A class sits on a saddle of its own loss where negative curvature is proved: a vector v with v′Hv < 0 beyond "
    "rounding was found. It is called a saddle from |λmin / λmax| of 2 % on, a deep one from 10 % on, below nearly a "
    "minimum. The class's own gradient need not be zero there: training descends the sum over all classes.",
    "± is the residual of the eigenvalue; where it has not converged, only “at least” is said.",
    "Runs are compared where images, network and length are the same. Curvature of cross-entropy grows with the loss, "
    "so class losses stand beside it, and moments of equal loss (within 20 %) are looked for in the courses.",
    "Two accuracies differ where the difference is larger than its noise: twice the standard error over seeds or, with "
    "one seed each, twice the standard error that the finite test set alone gives.",
)


class Sentence(NamedTuple):
    """``topic``: data, accuracy, saddle, comparison, gain, escape, calibration or missing. ``text`` is not escaped."""

    topic: str
    tone: Tone
    text: str


def reading(runs: Sequence[RunData]) -> list[Sentence]:
    """All sentences about runs on the same data, the most telling first."""
    found = [*data(runs), *short_runs(runs), *accuracy(runs), *gains(runs)]
    couples = pairs(runs)
    for plain, sam in couples:
        found += versus(plain, sam)
    paired = {id(run) for couple in couples for run in couple}
    for run in runs:
        found += [] if id(run) in paired else saddles(run)
    for run in runs:
        found += [*advice(run), *escape(run), *overconfidence(run)]
    if not any(run.measured for run in runs):
        found.append(Sentence("missing", "unknown", "Curvature was not measured, so nothing is said of saddles."))
    return found


def data(runs: Sequence[RunData]) -> list[Sentence]:
    first = next((run for run in runs if run.result), None)
    if first is None:
        return []
    order = ranked(first)
    # A name that is a number would be read as one.
    most, least = (
        f"{first.counts[c]:,} of {'class ' if first.classes[c].isdecimal() else ''}{short(first.classes[c])}"
        for c in (order[0], min(order, key=first.counts.__getitem__))
    )
    classes = counted(len(order), "class", "classes")
    return [Sentence("data", "note", f"{classes} with {sum(first.counts):,} training images: {most}, {least}.")]


def published_epochs(dataset: str) -> int | None:
    """How long the paper trained on this data; None for data that it does not have."""
    recipe = recipes().get(dataset)
    return int(recipe["epochs"]) if dataset in DATASETS and isinstance(recipe, dict) and "epochs" in recipe else None


def short_runs(runs: Sequence[RunData]) -> list[Sentence]:
    """Runs shorter than the paper's say nothing about its methods, and that comes first."""
    lengths = sorted({run.result.epochs for run in runs if run.result})
    wanted = published_epochs(runs[0].dataset) if runs else None
    if wanted is None or not lengths or lengths[0] >= wanted:
        return []
    trained = f"{listed([str(length) for length in lengths])} {'epoch' if lengths == [1] else 'epochs'}"
    text = (
        f"Trained for {trained}, the paper for {wanted}: this checks the machinery and is no claim about the methods."
    )
    return [Sentence("data", "unknown", text)]


def accuracy(runs: Sequence[RunData]) -> list[Sentence]:
    """One sentence on the best method by balanced accuracy and on where it fails."""
    methods = by_method([run for run in in_common(runs) if run.result and run.result.accuracy is not None])
    means = {title: _over_seeds(seeds, "balanced_accuracy")["mean"] for title, seeds in methods.items()}
    known = {title: value for title, value in means.items() if value is not None}
    if not known:
        return []
    best = max(known, key=known.__getitem__)
    seeds = methods[best]
    whole, head, tail = (_over_seeds(seeds, key)["mean"] for key in ("accuracy", "head", "tail"))
    text = f"{best} recognises {percent(whole)} of the test images"
    if len(known) > 1:
        text = f"Best of {len(known)} methods by the mean over classes ({percent(known[best])}): {text}"
    if head is not None and tail is not None:
        text += f", {percent(head)} of the head's classes and {percent(tail)} of the tail's"
    of_seeds = "one seed" if len(seeds) == 1 else f"mean of {len(seeds)} seeds"
    return [Sentence("accuracy", "finding", f"{text} ({of_seeds}).")]


def _over_seeds(runs: Sequence[RunData], key: str) -> dict[str, float | None]:
    return spread([getattr(run.result, key) for run in runs])


def gains(runs: Sequence[RunData]) -> list[Sentence]:
    """For each method and the same with SAM: does SAM help the tail?"""
    found = []
    methods = by_method([run for run in runs if run.result])
    couples = pairs(runs)
    for title, seeds in methods.items():
        partner = next((sam for plain, sam in couples if plain in seeds), None)
        others = methods[partner.title] if partner else []
        if not others or not all(comparable(seeds[0], run) for run in [*seeds, *others]):
            continue
        for key, name in (("tail", "tail"), ("accuracy", "whole test set")):
            before, after = _over_seeds(seeds, key)["mean"], _over_seeds(others, key)["mean"]
            if before is None or after is None:
                continue
            several = len(seeds) > 1 and len(others) > 1
            values = ([getattr(run.result, key) for run in some] for some in (seeds, others))
            noise = spread_noise(*values) or _test_noise(seeds[0], key, before, after)
            found.append(_gain(f"SAM on top of {title}", name, before, after, noise, several))
    return found


def _gain(lead: str, name: str, before: float, after: float, noise: float | None, several: bool) -> Sentence:
    figures = f"{percent(before)} → {percent(after)}, {points(after - before)}"
    if noise is None:
        text = f"{lead}, {name}: {figures}; how much of it is chance is not known (one seed)."
        return Sentence("accuracy", "note", text)
    source = "seeds" if several else "test set alone: one seed shows nothing of seeds"
    beside = f"(noise {number(noise, 2)} points, from the {source})"
    if abs(after - before) <= noise:
        text = f"{lead} makes no clear difference on the {name}: {figures} {beside}."
        return Sentence("accuracy", "unknown", text)
    verb = "lifts" if after > before else "lowers"
    return Sentence("accuracy", "good" if after > before else "bad", f"{lead} {verb} the {name}: {figures} {beside}.")


def spread_noise(mine: Sequence[float | None], theirs: Sequence[float | None]) -> float | None:
    """Twice the standard error of the difference of two means; None unless both have two values or more."""
    variance = 0.0
    for values in (mine, theirs):
        deviation = spread(values)["std"]
        if deviation is None:
            return None
        variance += deviation**2 / sum(value is not None for value in values)
    return 2 * math.sqrt(variance)


def _test_noise(run: RunData, key: str, before: float, after: float) -> float | None:
    """Twice the standard error of a difference of percentages on the same number of test images, where it is known: of
    the tail only where predictions of single images were kept."""
    images: int | None = None
    if key == "accuracy":
        images = next((epoch.test.images for epoch in reversed(run.tested) if epoch.test.images), None)
    elif run.predictions is not None and run.groups:
        images = int(np.isin(run.predictions.labels, run.groups["tail"]).sum())
    if not images:
        return None
    variance = sum((p := min(max(value / 100, 0), 1)) * (1 - p) for value in (before, after)) / images
    return 200 * math.sqrt(variance)


def depth(row: Curvature) -> str:
    """Rule 1, in a word: "unproved", "minimum", "saddle" or "deep"."""
    if not row.negative_curvature_proved:
        return "minimum" if row.converged_min and row.lambda_min >= -abs(row.lambda_max) * 1e-6 else "unproved"
    share = math.inf if row.nonconvexity is None else row.nonconvexity
    return "deep" if share >= DEEP else "saddle" if share >= SADDLE else "minimum"


def described(run: RunData, row: Curvature) -> Sentence:
    """Rule 1 for one class of one run."""
    images = f", {row.training_images:,} images" if row.training_images else ""
    name = f"Class {short(row.name or run.class_name(row.label))} ({row.group or 'no group'}{images})"
    kind, low = depth(row), number(row.lambda_min)
    if kind == "unproved":
        text = f"no negative curvature is proved with {run.title}, nor that there is none: λmin {low}, not settled."
        return Sentence("saddle", "unknown", f"{name}: {text}")
    if not row.negative_curvature_proved:
        text = f"lies at a minimum of its own loss with {run.title}: no negative curvature (λmin {low} {_error(row)})."
        return Sentence("saddle", "good", f"{name} {text}")
    share = "" if row.nonconvexity is None else f", {percent(ratio(row))} of λmax"
    value = f"curvature of at least {low} is proved{share}, λmin itself is not settled"
    if row.converged_min:
        value = f"λmin {low} {_error(row)}{share}"
    words = {"deep": "sits on a deep saddle", "saddle": "sits on a saddle", "minimum": "is nearly at a minimum"}[kind]
    text = f"{name} {words} of its own loss with {run.title}: {value}; class loss {number(row.loss)}."
    return Sentence("saddle", "good" if kind == "minimum" else "bad", text)


def _error(row: Curvature) -> str:
    known = row.residual_min is not None and row.converged_min
    return f"± {number(row.residual_min, 1)}" if known else "(error not known)"


def saddles(run: RunData) -> list[Sentence]:
    """How many classes of head and tail sit on saddles, and the most saddle-like one of the tail."""
    row = tail_class(run)
    return [*_counted(run), *([described(run, row)] if row else [])]


def _counted(run: RunData) -> list[Sentence]:
    counts = []
    for group in GROUPS:
        mine = [row for row in run.measured if row.group == group]
        if mine:
            deep = sum(depth(row) in ("saddle", "deep") for row in mine)
            counts.append(f"{deep} of {len(mine)} {group} classes")
    bound = f"λmin proved negative and at least {percent(100 * SADDLE, 0)} of λmax"
    text = f"{run.title}: on a saddle ({bound}) are {listed(counts)}."
    return [Sentence("saddle", "finding", text)] if counts else []


def versus(plain: RunData, sam: RunData) -> list[Sentence]:
    """The same class with and without SAM: at the end of training, then at equal class loss where both courses go."""
    row = tail_class(plain)
    counts = [*_counted(plain), *_counted(sam)]
    if row is None:
        return counts
    other = next((one for one in sam.measured if one.label == row.label), None)
    name = f"Class {short(row.name or plain.class_name(row.label))}"
    found = [described(plain, row)]
    if other is not None:
        found.append(_compared(f"{name} at the end", row, other, plain, sam))
    moments = at_equal_loss(plain.moments, sam.moments, row.label)
    if moments is not None:
        a, b = moments
        less = abs(b.lambda_min or 0.0) < abs(a.lambda_min or 0.0)
        text = (
            f"{name} at equal class loss ({number(a.loss)} after epoch {a.epoch} with {plain.title}, {number(b.loss)} "
            f"after epoch {b.epoch} with {sam.title}): λmin {number(a.lambda_min)} and {number(b.lambda_min)}, "
            f"{'less' if less else 'more'} negative with SAM."
        )
        found.append(Sentence("comparison", "good" if less else "bad", text))
    elif plain.moments and sam.moments:
        text = "the two courses share no moment of equal class loss with settled curvature, so no comparison at equal"
        found.append(Sentence("comparison", "unknown", f"{name}: {text} loss is made."))
    return found + counts


def _compared(name: str, row: Curvature, other: Curvature, plain: RunData, sam: RunData) -> Sentence:
    shares = ["all" if one.nonconvexity is None else percent(ratio(one)) for one in (row, other)]
    figures = (
        f"λmin {number(row.lambda_min)} {_error(row)} with {plain.title}, {number(other.lambda_min)} {_error(other)} "
        f"with {sam.title} ({shares[0]} and {shares[1]} of λmax)"
    )
    if not all(one.converged_min and one.negative_curvature_proved for one in (row, other)):
        text = f"{name}: {figures}. Not both are settled, so nothing is claimed."
        return Sentence("comparison", "unknown", text)
    losses = f"class losses {number(row.loss)} and {number(other.loss)}"
    if not row.loss or not other.loss or max(row.loss / other.loss, other.loss / row.loss) > LOSSES_DIFFER:
        why = f"Not at equal loss ({losses}), so this alone does not show what SAM does to curvature."
        return Sentence("comparison", "note", f"{name}: {figures}. {why}")
    shallower = abs(other.lambda_min) < abs(row.lambda_min)
    return Sentence("comparison", "good" if shallower else "bad", f"{name}, at about equal loss ({losses}): {figures}.")


def at_equal_loss(
    one: Sequence[Moment | GroupMoment], other: Sequence[Moment | GroupMoment], label: int | None
) -> tuple[Moment, Moment] | None:
    """The latest two moments whose class losses are equal within 20 % and whose curvature is settled and negative."""

    def settled(course: Sequence[Moment | GroupMoment]) -> list[Moment]:
        moments = [moment for moment in course if isinstance(moment, Moment) and moment.label == label]
        return [moment for moment in moments if moment.converged and moment.proved and moment.loss]

    def apart(pair: tuple[Moment, Moment]) -> float:
        return abs(math.log((pair[0].loss or 1.0) / (pair[1].loss or 1.0)))

    def lateness(pair: tuple[Moment, Moment]) -> tuple[float, ...]:
        a, b = pair
        return min(a.stage, b.stage), min(a.epoch, b.epoch), a.epoch + b.epoch, -apart(pair)

    equal = [pair for pair in product(settled(one), settled(other)) if apart(pair) <= math.log(LOSSES_EQUAL)]
    return max(equal, key=lateness, default=None)


def advice(run: RunData) -> list[Sentence]:
    """From which rho on SAM amplifies the tail's negative directions, as measured."""
    if run.advice is None:
        return []
    proved = [row for row in run.advice.classes if row.group == "tail" and row.negative_curvature_proved]
    tail = [row.class_batches for row in proved if row.class_batches]
    if not tail:
        text = f"{run.title}: no tail class with proved negative curvature, so no radius amplifies any."
        return [Sentence("gain", "unknown", text)]
    reached = [gain.measured_threshold for gain in tail if gain.measured_threshold is not None]
    largest = max((one.rho for gain in tail for one in gain.rho), default=0.0)
    classes = counted(len(tail), "tail class", "tail classes")
    text = f"SAM amplifies the negative direction of none of {classes} for good up to rho {number(largest)}"
    if reached:
        text = (
            f"SAM amplifies the negative direction of {len(reached)} of {classes} within the rho tried, the first from "
            f"rho {number(min(reached))} on"
        )
    if run.sam_radii:
        text += f"; it was trained with rho {listed([number(rho) for rho in run.sam_radii])}"
    text = f"At the weights of {run.title} {text} (mini-batches of the class alone)."
    return [Sentence("gain", "finding", text)]


def escape(run: RunData) -> list[Sentence]:
    if run.escape is None or run.escape.verdict is None or not run.escape.verdict.text:
        return []
    return [Sentence("escape", "finding", f"Escape experiment from {run.title}: {clean(run.escape.verdict.text)}")]


def overconfidence(run: RunData) -> list[Sentence]:
    if run.predictions is None or not len(run.predictions.labels):
        return []
    error = calibration(run.predictions).error
    sure = 100 * float(run.predictions.confidences.mean())
    right = 100 * float((run.predictions.labels == run.predictions.predictions).mean())
    words = "about as sure as right"
    if abs(sure - right) > 1:
        words = f"{'surer' if sure > right else 'less sure'} than it is right"
    text = (
        f"{run.title} is {words}: {percent(sure)} sure on average, {percent(right)} right (calibration error "
        f"{percent(100 * error)})."
    )
    return [Sentence("calibration", "bad" if abs(sure - right) > 5 else "note", text)]
