"""What a set of runs shows, as sentences made by stated rules; a measurement that is missing is named.

``RULES``, which the page prints, say which runs are compared, when two accuracies differ and what is proved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from statistics import median
from typing import Literal, NamedTuple

import numpy as np

from saddlescape.errors import counted
from saddlescape.published import recipes
from saddlescape.records.course import GroupMoment, Moment
from saddlescape.records.curvature import Curvature
from saddlescape.records.result_warnings import result_warnings
from saddlescape.report.calibration import calibration
from saddlescape.report.read import GROUPS, RunData
from saddlescape.report.select import by_method, comparable, in_common, pairs, ranked, ratio, tail_class
from saddlescape.report.table import DATASETS, spread
from saddlescape.report.table import number as mean_sd
from saddlescape.report.text import clean, listed, number, percent, points, short

LOSSES_DIFFER, LOSSES_EQUAL = 1.5, 1.2
Tone = Literal["finding", "good", "bad", "unknown", "note"]

RULES = (
    "Accuracies are means ± one standard deviation over seeds. Two of them differ where the difference is larger than "
    "its noise: twice the standard error over seeds or, with one seed each, twice the standard error that the finite "
    "test set alone gives.",
    "A class sits on a saddle of its own loss where negative curvature is proved: a vector v with v′Hv < 0 beyond "
    "rounding was found. |λmin/λmax| says how much of a saddle. The class's own gradient need not be zero there: "
    "training descends the sum over all classes.",
    "Both ends of the spectrum are compared over the classes where both are settled in both runs; ratios are medians. "
    "The residual of an eigenvalue is its error; where it has not converged, only “at least” is said.",
    "Runs are compared where images, network and length are the same. Curvature of cross-entropy grows with the loss, "
    "so class losses stand beside it, and moments of equal loss (within 20 %) are looked for in the courses.",
)


class Sentence(NamedTuple):
    """``topic``: failure, data, accuracy, saddle, comparison, gain, escape, calibration or missing. ``text`` is not
    escaped."""

    topic: str
    tone: Tone
    text: str


class Change(NamedTuple):
    """An accuracy without and with SAM: ``before``, ``after`` of ``spread``; ``noise`` in points, None: unknown."""

    before: dict[str, float | None]
    after: dict[str, float | None]
    noise: float | None

    @property
    def points(self) -> float:
        return (self.after["mean"] or 0.0) - (self.before["mean"] or 0.0)

    @property
    def clear(self) -> bool:
        return self.noise is not None and abs(self.points) > self.noise

    @property
    def text(self) -> str:
        return f"{mean_sd(self.before)} % → {mean_sd(self.after)} %"


def reading(runs: Sequence[RunData]) -> list[Sentence]:
    """All sentences about runs on the same data, failures first."""
    first = lead(runs)  # stands above all
    found = [*failures(runs), *short_runs(runs), *(one for one in accuracy(runs) if one.text != first)]
    found += gains(runs)
    measured: dict[str, RunData] = {}  # of several seeds the first
    for run in runs:
        if run.measured:
            measured.setdefault(run.title, run)
    couples_of = pairs(list(measured.values()))
    for plain, sam in couples_of:
        found += versus(plain, sam)
    compared = {id(run) for couple in couples_of for run in couple}
    for run in measured.values():
        found += [] if id(run) in compared else saddles(run)
    for run in runs:
        found += [*advice(run), *escape(run)]
    found += [*overconfidence(runs), *data(runs)]
    if not any(run.measured for run in runs):
        found.append(Sentence("missing", "unknown", "Curvature was not measured, so no saddle is stated."))
    return found


def lead(runs: Sequence[RunData]) -> str:
    """The sentence at the top of the page: what was gained or lost, and on which classes; "" where no run is
    finished."""
    changes = [(plain, sam, change) for plain, sam in couples(runs) if (change := changed(plain, sam, "tail"))]
    if not changes:
        return next((sentence.text for sentence in accuracy(runs)), "")
    plain, sam, tail = max(changes, key=lambda each: each[2].after["mean"] or 0.0)
    verb = "gains" if tail.points > 0 else "loses"
    text = f"{verb} {abs(tail.points):.1f} points on the tail"
    if tail.noise is not None and not tail.clear:
        text = "shows no clear change on the tail"
    text = f"With SAM, {plain[0].title} {text} ({tail.text})"
    classes = plain[0].groups["tail"] if plain[0].groups else range(len(plain[0].per_class))
    by_class = {c: change.points for c in classes if (change := _of_class(plain, sam, c)) is not None}
    most = sorted((c for c in by_class if by_class[c] * tail.points > 0), key=lambda c: -abs(by_class[c]))[:2]
    if most and (tail.clear or tail.noise is None):
        named = [f"{_class(plain[0], c)} ({points(by_class[c])})" for c in most if abs(by_class[c]) >= 1]
        text += f", most on {listed(named)}" if named else ""
    whole = changed(plain, sam, "accuracy")
    return text + (f"; all test images: {whole.text}." if whole else ".")


def _of_class(plain: Sequence[RunData], sam: Sequence[RunData], label: int) -> Change | None:
    before, after = (spread([run.per_class[label] for run in seeds if label < len(run.per_class)])
                     for seeds in (plain, sam))  # fmt: skip
    return None if before["mean"] is None or after["mean"] is None else Change(before, after, None)


def _class(run: RunData, label: int | None, name: str = "") -> str:
    """ "class 9", "truck": a name that is a number would be read as one."""
    shown = short(name or run.class_name(label))
    return f"class {shown}" if shown.isdecimal() else shown


def failures(runs: Sequence[RunData]) -> list[Sentence]:
    """What to know before a run is trusted, once for each text; calibration has a sentence of its own."""
    found: dict[str, list[str]] = {}
    for run in runs:
        if run.result is not None:
            for text in run.result.warnings or result_warnings(run.result):
                if not text.startswith("calibration error"):
                    found.setdefault(clean(text), []).append(run.name)
    return [Sentence("failure", "bad", f"{listed(names, 4)}: {text}.") for text, names in found.items()]


def data(runs: Sequence[RunData]) -> list[Sentence]:
    first = next((run for run in runs if run.result), None)
    if first is None:
        return []
    order = ranked(first)
    most, least = (
        f"{first.counts[c]:,} of {_class(first, c)}" for c in (order[0], min(order, key=first.counts.__getitem__))
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
    text = f"Trained for {trained}, the paper for {wanted}: this is no claim about the methods at full length."
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
    whole, head, tail = (_over_seeds(seeds, key) for key in ("accuracy", "head", "tail"))
    text = f"{best} recognises {mean_sd(whole)} % of the test images"
    if len(known) > 1:
        text = f"Best of {len(known)} methods by the mean over classes ({percent(known[best])}): {text}"
    if head["mean"] is not None and tail["mean"] is not None:
        text += f", {mean_sd(head)} % of the head's classes and {mean_sd(tail)} % of the tail's"
    values = {c: spread([run.per_class[c] for run in seeds])["mean"] for c in range(len(seeds[0].per_class))
              if all(len(run.per_class) > c for run in seeds)}  # fmt: skip
    scored = {c: value for c, value in values.items() if value is not None}
    if len(scored) > 1:
        lowest = min(scored, key=scored.__getitem__)
        text += f"; the lowest is {_class(seeds[0], lowest)} with {percent(scored[lowest])}"
    of_seeds = "one seed" if len(seeds) == 1 else f"mean of {len(seeds)} seeds"
    return [Sentence("accuracy", "finding", f"{text} ({of_seeds}).")]


def _over_seeds(runs: Sequence[RunData], key: str) -> dict[str, float | None]:
    return spread([getattr(run.result, key) for run in runs])


def couples(runs: Sequence[RunData]) -> list[tuple[list[RunData], list[RunData]]]:
    """(the seeds of a method, those of the same with SAM) for each method that has both and may be compared."""
    methods = by_method([run for run in runs if run.result])
    partners, found = pairs(runs), []
    for seeds in methods.values():
        partner = next((sam for plain, sam in partners if plain in seeds), None)
        others = methods[partner.title] if partner else []
        if others and all(comparable(seeds[0], run) for run in [*seeds, *others]):
            found.append((seeds, others))
    return found


def changed(plain: Sequence[RunData], sam: Sequence[RunData], key: str) -> Change | None:
    """A percentage of ``Result`` without and with SAM; None where it is unknown."""
    before, after = _over_seeds(plain, key), _over_seeds(sam, key)
    if before["mean"] is None or after["mean"] is None:
        return None
    values = ([getattr(run.result, key) for run in some] for some in (plain, sam))
    noise = spread_noise(*values) or _test_noise(plain[0], key, before["mean"], after["mean"])
    return Change(before, after, noise)


def gains(runs: Sequence[RunData]) -> list[Sentence]:
    """For each method and the same with SAM: does SAM help the tail, and what does it do to the rest?"""
    found = []
    for plain, sam in couples(runs):
        known = [(name, change) for key, name in (("tail", "tail"), ("head", "head"), ("accuracy", "all test images"))
                 if (change := changed(plain, sam, key))]  # fmt: skip
        if known:
            several = len(plain) > 1 and len(sam) > 1
            found.append(_gain(f"SAM on top of {plain[0].title}", known, several))
    return found


def _gain(start: str, known: Sequence[tuple[str, Change]], several: bool) -> Sentence:
    name, change = known[0]
    figures = ", ".join(f"{other} {each.text}" for other, each in known[1:])
    figures = f"{change.text}{'; ' if figures else ''}{figures}"
    source = "seeds" if several else "test set alone: one seed shows nothing of seeds"
    beside = f" (noise of the {name}: {number(change.noise, 2)} points, from the {source})"
    if change.noise is None:
        return Sentence("accuracy", "note", f"{start}, {name}: {figures}. One seed: how much is chance is unknown.")
    if not change.clear:
        return Sentence("accuracy", "unknown", f"{start} makes no clear difference on the {name}: {figures}{beside}.")
    verb, tone = ("lifts", "good") if change.points > 0 else ("lowers", "bad")
    return Sentence("accuracy", tone, f"{start} {verb} the {name}: {figures}{beside}.")  # type: ignore[arg-type]


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
    a group only where predictions of single images were kept."""
    images: int | None = None
    if key == "accuracy":
        images = next((epoch.test.images for epoch in reversed(run.tested) if epoch.test.images), None)
    elif run.predictions is not None and run.groups:
        images = int(np.isin(run.predictions.labels, run.groups[key]).sum())
    if not images:
        return None
    variance = sum((p := min(max(value / 100, 0), 1)) * (1 - p) for value in (before, after)) / images
    return 200 * math.sqrt(variance)


def saddles(run: RunData) -> list[Sentence]:
    """In how many classes negative curvature is proved, and the most saddle-like one of the tail."""
    counts = []
    for group in GROUPS:
        mine = [row for row in run.measured if row.group == group]
        if mine:
            proved = sum(row.negative_curvature_proved for row in mine)
            counts.append(f"{proved} of {counted(len(mine), f'{group} class', f'{group} classes')}")
    text = [f"negative curvature is proved in {listed(counts)}"] if counts else []
    row = tail_class(run)
    text += [described(run, row)] if row else []
    return [Sentence("saddle", "finding", f"{run.title}: {'; '.join(text)}.")] if text else []


def described(run: RunData, row: Curvature) -> str:
    """The lowest curvature of one class: its value, its error, and whether it is proved and settled."""
    images = f", {counted(row.training_images, 'image')}" if row.training_images else ""
    name, low = f"{_class(run, row.label, row.name)} ({row.group or 'no group'}{images})", number(row.lambda_min)
    share = "" if row.nonconvexity is None else f", {percent(ratio(row))} of λmax"
    loss = "" if row.loss is None else f", class loss {number(row.loss)}"
    error = f" ± {number(row.residual_min, 1)}" if row.residual_min is not None else ""
    if not row.negative_curvature_proved:
        if row.converged_min and row.lambda_min >= -abs(row.lambda_max) * 1e-6:
            return f"{name} has no negative curvature: λmin {low}{error}{loss}"
        return f"{name}: neither proved nor excluded, λmin {low} is not settled{loss}"
    if not row.converged_min:
        return f"{name} has curvature of at least {low}{share}; λmin itself is not settled{loss}"
    return f"{name} has λmin {low}{error}{share}{loss}"


def versus(plain: RunData, sam: RunData) -> list[Sentence]:
    """Both ends of the spectrum without and with SAM: at the end of training, then at equal class loss."""
    theirs = {row.label: row for row in sam.measured}
    couples_of = [(row, theirs[row.label]) for row in plain.measured if row.label in theirs]
    settled = [pair for pair in couples_of if all(row.converged_min and row.converged_max
               and row.negative_curvature_proved and row.lambda_max > 0 for row in pair)]  # fmt: skip
    found = [_ends(plain, sam, settled)] if settled else []
    if couples_of and not settled:
        text = f"{plain.title} and with SAM: in no class are both ends of both settled, so they are not compared."
        found = [Sentence("saddle", "unknown", text)]
    row = tail_class(plain)
    if row is None or not (plain.moments and sam.moments):
        return found
    name, moments = _class(plain, row.label, row.name), at_equal_loss(plain.moments, sam.moments, row.label)
    if moments is None:
        text = f"{name}: the two courses share no moment of equal class loss with settled curvature."
        return [*found, Sentence("comparison", "unknown", text)]
    a, b = moments
    less = abs(b.lambda_min or 0.0) < abs(a.lambda_min or 0.0)
    text = (
        f"{name} at equal class loss ({number(a.loss)} after epoch {a.epoch} with {plain.title}, {number(b.loss)} "
        f"after epoch {b.epoch} with {sam.title}): λmin {number(a.lambda_min)} → {number(b.lambda_min)}, "
        f"{'less' if less else 'more'} negative with SAM."
    )
    return [*found, Sentence("comparison", "good" if less else "bad", text)]


def _ends(plain: RunData, sam: RunData, rows: Sequence[tuple[Curvature, Curvature]]) -> Sentence:
    """What SAM does to λmin and λmax over the classes where both are settled, and why their ratio moves."""
    total = len(rows)
    low, high = (median(getattr(b, end) / getattr(a, end) for a, b in rows) for end in ("lambda_min", "lambda_max"))
    lower, flatter = (sum(abs(getattr(b, end)) < abs(getattr(a, end)) for a, b in rows)
                      for end in ("lambda_min", "lambda_max"))  # fmt: skip
    to = f"λmin to {low:.2f} of {plain.title}'s, λmax to {high:.2f}"
    if all(0.99 < end < 1.01 for end in (low, high)):
        text = f"{sam.title} leaves both ends as they are in {counted(total, 'class', 'classes')} (medians): {to}"
    elif lower == flatter and lower in (0, total):
        classes = f"all {total} classes" if total > 1 else _class(plain, rows[0][0].label)
        text = f"{sam.title} {'flattens' if lower else 'sharpens'} both ends in {classes}: {to}"
    else:
        text = (f"{sam.title} makes λmin less negative in {lower} and λmax smaller in {flatter} of "
                f"{counted(total, 'class', 'classes')}: {to}")  # fmt: skip
    before, after = (median(100 * abs(row.lambda_min) / row.lambda_max for row in some)
                     for some in zip(*rows, strict=True))  # fmt: skip
    more = abs(math.log(low)) - abs(math.log(high))
    why = ""
    if (low < 1) == (high < 1) and (after - before) * (low - high) > 0:
        moved = "falls" if high < 1 else "grows"
        why = f" because {'λmin' if more > 0 else 'λmax'} {moved} more"
    text += f". |λmin/λmax| {'rises' if after > before else 'falls'} ({percent(before)} → {percent(after)}){why}"
    losses = [median(known) for some in zip(*rows, strict=True)
              if (known := [row.loss for row in some if row.loss is not None])]  # fmt: skip
    tone: Tone = "finding"
    if len(losses) == 2:
        text += f". Class losses: {number(losses[0])} → {number(losses[1])}"
        if min(losses) > 0 and max(losses) / min(losses) <= LOSSES_DIFFER:
            tone = "good" if low < 1 and high < 1 else "bad" if low > 1 and high > 1 else "finding"
        else:
            text += ", so part of this may come from the loss alone"
    return Sentence("saddle", tone, f"{text}.")


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
    text = f"At the weights of {run.title}, {text} (mini-batches of the class alone)."
    return [Sentence("gain", "finding", text)]


def escape(run: RunData) -> list[Sentence]:
    if run.escape is None or run.escape.verdict is None or not run.escape.verdict.text:
        return []
    return [Sentence("escape", "finding", f"Escape experiment from {run.title}: {clean(run.escape.verdict.text)}")]


def overconfidence(runs: Sequence[RunData]) -> list[Sentence]:
    """How confident the runs are beside how often they are right; at most four are named."""
    words, gaps = [], []
    for run in runs:
        if run.predictions is not None and len(run.predictions.labels):
            sure = 100 * float(run.predictions.confidences.mean())
            right = 100 * float((run.predictions.labels == run.predictions.predictions).mean())
            kind = "calibrated within a point" if abs(sure - right) <= 1 else "overconfident"
            kind = "underconfident" if right - sure > 1 else kind
            error = percent(100 * calibration(run.predictions).error)
            words.append(f"{run.name} is {kind} ({percent(sure)} confident, {percent(right)} right, ECE {error})")
            gaps.append(abs(sure - right))
    return [Sentence("calibration", "bad" if max(gaps) > 5 else "note", f"{listed(words, 4)}.")] if words else []
