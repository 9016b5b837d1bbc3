"""The plain-language reading of a set of runs, by stated rules from figures to sentences.

Rules (``RULES`` prints them on the page):

1. *Saddle.* A class sits on a saddle of its own loss where negative curvature is proved (a vector v with v'Hv below
   rounding was found). From |lambda_min / lambda_max| of 2 % on it is told as a saddle, from 10 % on as a deep one,
   below 2 % as nearly a minimum. Where lambda_min has not converged only "at least" is said; where it is not proved,
   nothing is claimed.
2. *Comparison.* Two runs are compared where images, network and length are the same. Curvature of cross-entropy grows
   with the loss: where class losses differ by more than a factor of 1.5, the comparison says so, and moments of equal
   loss (within 20 %) are looked for in the courses of both.
3. *Accuracy.* A difference is told as one where it is larger than its noise: with several seeds each, twice the
   standard error of the difference; with one, twice the standard error that the finite test set alone gives, if the
   number of test images is known.
4. *Nothing else is said.* A part that was not measured is named as such.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from saddlescape.published import recipes
from saddlescape.records.course import Moment
from saddlescape.records.curvature import Curvature
from saddlescape.report.calibration import calibration
from saddlescape.report.read import RunData
from saddlescape.report.select import by_method, comparable, in_common, measured, pairs, tail_class
from saddlescape.report.table import DATASETS
from saddlescape.report.text import clean, count, listed, number, percent, points, short

SADDLE, DEEP = 0.02, 0.10  # |lambda_min / lambda_max| from which on a saddle is told, and a deep one
LOSSES_DIFFER, LOSSES_EQUAL = 1.5, 1.2
Tone = Literal["finding", "good", "bad", "unknown", "note"]

RULES = (
    "A class sits on a saddle of its own loss where negative curvature is proved: a vector v with v′Hv < 0 "
    "beyond rounding "
    "was found. It is told as a saddle from |λmin / λmax| of 2 % on, as a deep one from 10 % on, below as "
    "nearly a minimum. "
    "The class's own gradient need not be zero there: training descends the sum over all classes.",
    "± is the residual of the eigenvalue; where it has not converged, only “at least” is said.",
    "Runs are compared where images, network and length are the same. Curvature of cross-entropy grows with the "
    "loss, so "
    "class losses stand beside it, and moments of equal loss (within 20 %) are looked for in the courses.",
    "Two accuracies differ where the difference is larger than its noise: twice the standard error over seeds "
    "or, with one "
    "seed each, twice the standard error that the finite test set alone gives.",
)


@dataclass(frozen=True)
class Sentence:
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
        if measured(run) and id(run) not in paired:
            found += saddles(run)
    for run in runs:
        found += [*advice(run), *escape(run), *overconfidence(run)]
    return found + missing(runs)


def data(runs: Sequence[RunData]) -> list[Sentence]:
    first = next((run for run in runs if run.result), None)
    if first is None:
        return []
    counts = first.counts
    most, least = max(range(len(counts)), key=counts.__getitem__), min(range(len(counts)), key=counts.__getitem__)
    text = (
        f"{count(len(counts), 'class', 'classes')} with {sum(counts):,} training images: {counts[most]:,} of "
        f"{_called(first.classes[most])}, {counts[least]:,} of {_called(first.classes[least])}."
    )
    return [Sentence("data", "note", text)]


def _called(name: str) -> str:
    """A class in a sentence; a name that is a number would be read as one."""
    return f"class {short(name)}" if name.isdecimal() else short(name)


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
    told = listed([str(length) for length in lengths])
    claim = "this checks the machinery and is no claim about the methods"
    text = f"Trained for {told} {'epoch' if told == '1' else 'epochs'}, the paper for {wanted}: {claim}."
    return [Sentence("data", "unknown", text)]


def accuracy(runs: Sequence[RunData]) -> list[Sentence]:
    """One sentence on the best method by balanced accuracy and one on where it fails."""
    done = [run for run in in_common(runs) if run.result and run.result.accuracy is not None]
    if not done:
        return []
    means = {title: _mean([_balanced(run) for run in seeds]) for title, seeds in by_method(done).items()}
    known = {title: value for title, value in means.items() if value is not None}
    if not known:
        return []
    best = max(known, key=known.__getitem__)
    seeds = by_method(done)[best]
    head, tail = (_mean([getattr(run.result, key) for run in seeds]) for key in ("head", "tail"))
    whole = _mean([run.result.accuracy for run in seeds if run.result])
    lead = f"{best} recognises {percent(whole)} of the test images"
    if len(known) > 1:
        lead = f"Best of {len(known)} methods by the mean over classes ({percent(known[best])}): {lead}"
    where = (
        f", {percent(head)} of the head's classes and {percent(tail)} of the tail's" if None not in (head, tail) else ""
    )
    return [Sentence("accuracy", "finding", f"{lead}{where} ({_seeds(seeds)}).")]


def gains(runs: Sequence[RunData]) -> list[Sentence]:
    """For each method and the same with SAM: does SAM help the tail?"""
    found = []
    methods = by_method([run for run in runs if run.result])
    for title, seeds in methods.items():
        base = seeds[0]
        partner = next((sam for plain, sam in pairs(runs) if plain is base or plain in seeds), None)
        if partner is None:
            continue
        others = methods[partner.title]
        if not all(comparable(base, run) for run in [*seeds, *others]):
            continue
        for key, name in (("tail", "tail"), ("accuracy", "whole test set")):
            mine = [getattr(run.result, key) for run in seeds]
            theirs = [getattr(run.result, key) for run in others]
            before, after = _mean(mine), _mean(theirs)
            if before is None or after is None:
                continue
            noise = spread_noise(mine, theirs) or _test_noise(base, key, before, after)
            found.append(_gain(title, name, before, after, noise, len(mine) > 1 and len(theirs) > 1))
    return found


def _gain(title: str, name: str, before: float, after: float, noise: float | None, seeds: bool) -> Sentence:
    difference = after - before
    figures = f"{percent(before)} → {percent(after)}, {points(difference)}"
    source = "seeds" if seeds else "test set"
    if noise is None:
        return Sentence(
            "accuracy",
            "note",
            f"SAM on top of {title}, {name}: {figures}; how much of it is chance is not known (one seed).",
        )
    beside = f"noise {number(noise, 2)} points, from the {source}" + (
        "" if seeds else " alone: one seed tells nothing of seeds"
    )
    if abs(difference) <= noise:
        return Sentence(
            "accuracy",
            "unknown",
            f"SAM on top of {title} makes no clear difference on the {name}: {figures} ({beside}).",
        )
    verb = "lifts" if difference > 0 else "lowers"
    tone: Tone = "good" if difference > 0 else "bad"
    return Sentence("accuracy", tone, f"SAM on top of {title} {verb} the {name}: {figures} ({beside}).")  # type: ignore[arg-type]


def spread_noise(mine: Sequence[float | None], theirs: Sequence[float | None]) -> float | None:
    """Twice the standard error of the difference of two means; None unless both have two values or more."""
    variances = []
    for values in (mine, theirs):
        present = [value for value in values if value is not None]
        if len(present) < 2:
            return None
        mean = sum(present) / len(present)
        variances.append(sum((v - mean) ** 2 for v in present) / (len(present) - 1) / len(present))
    return 2 * math.sqrt(sum(variances))


def _test_noise(run: RunData, key: str, before: float, after: float) -> float | None:
    """Twice the standard error of a difference of percentages on the same number of test images."""
    images = _test_images(run, key)
    if not images:
        return None
    variance = sum((p := min(max(value / 100, 0), 1)) * (1 - p) for value in (before, after)) / images
    return 200 * math.sqrt(variance)


def _test_images(run: RunData, key: str) -> int | None:
    """How many test images an accuracy is over; of the tail only where single answers were kept."""
    if key == "accuracy":
        return next((epoch.test.images for epoch in reversed(run.tested) if epoch.test.images), None)
    if run.predictions is None or not run.groups:
        return None
    members = set(run.groups["tail"])
    return sum(int(label) in members for label in run.predictions.labels)


def depth(row: Curvature) -> str:
    """Rule 1, in a word: "unproved", "minimum", "saddle" or "deep"."""
    if not row.negative_curvature_proved:
        return "minimum" if row.converged_min and row.lambda_min >= -abs(row.lambda_max) * 1e-6 else "unproved"
    ratio = math.inf if row.nonconvexity is None else row.nonconvexity
    return "deep" if ratio >= DEEP else "saddle" if ratio >= SADDLE else "minimum"


def described(run: RunData, row: Curvature) -> Sentence:
    """Rule 1 for one class of one run."""
    images = f", {row.training_images:,} images" if row.training_images else ""
    name = f"Class {short(row.name or run.class_name(row.label or 0))} ({row.group or 'no group'}{images})"
    kind = depth(row)
    if kind == "unproved":
        return Sentence(
            "saddle",
            "unknown",
            f"{name}: no negative curvature is proved with {run.title}, nor that there is none: "
            f"λmin {number(row.lambda_min)}, not settled.",
        )
    if not row.negative_curvature_proved:
        return Sentence(
            "saddle",
            "good",
            f"{name} lies at a minimum of its own loss with {run.title}: no negative curvature "
            f"(λmin {number(row.lambda_min)} {_error(row)}).",
        )
    share = "" if row.nonconvexity is None else f", {percent(100 * row.nonconvexity)} of λmax"
    value = (
        f"λmin {number(row.lambda_min)} {_error(row)}{share}"
        if row.converged_min
        else f"curvature of at least {number(row.lambda_min)} is proved{share}, λmin itself is not settled"
    )
    words = {"deep": "sits on a deep saddle", "saddle": "sits on a saddle", "minimum": "is nearly at a minimum"}[kind]
    tone: Tone = "good" if kind == "minimum" else "bad"
    return Sentence(
        "saddle", tone, f"{name} {words} of its own loss with {run.title}: {value}; class loss {number(row.loss)}."
    )


def _error(row: Curvature) -> str:
    return (
        f"± {number(row.residual_min, 1)}"
        if row.residual_min is not None and row.converged_min
        else "(error not known)"
    )


def saddles(run: RunData) -> list[Sentence]:
    """How many classes of head and tail sit on saddles, and the most saddle-like one of the tail."""
    rows = measured(run)
    counts = []
    for group in ("head", "mid", "tail"):
        mine = [row for row in rows if row.group == group]
        if mine:
            deep = sum(depth(row) in ("saddle", "deep") for row in mine)
            counts.append(f"{deep} of {len(mine)} {group} classes")
    found = []
    if counts:
        found.append(
            Sentence(
                "saddle",
                "finding",
                f"{run.title}: on a saddle (λmin proved negative and at least "
                f"{percent(100 * SADDLE, 0)} of λmax) are {listed(counts)}.",
            )
        )
    row = tail_class(run)
    return [*found, described(run, row)] if row is not None else found


def versus(plain: RunData, sam: RunData) -> list[Sentence]:
    """The same class with and without SAM: at the end of training, then at equal class loss where both courses go."""
    row = tail_class(plain)
    counts = [*saddles(plain)[:1], *saddles(sam)[:1]]
    if row is None:
        return counts
    other = next((one for one in measured(sam) if one.label == row.label), None)
    name = f"Class {short(row.name or plain.class_name(row.label or 0))}"
    found = [described(plain, row)]
    if other is not None:
        found.append(_compared(name, row, other, plain, sam))
    matched = at_equal_loss(plain.course, sam.course, row.label)
    if matched is not None:
        found.append(_matched(name, matched, plain, sam))
    elif plain.course and sam.course:
        found.append(
            Sentence(
                "comparison",
                "unknown",
                f"{name}: the two courses share no moment of equal class loss with settled "
                "curvature, so no comparison at equal loss is made.",
            )
        )
    return found + counts


def _compared(name: str, row: Curvature, other: Curvature, plain: RunData, sam: RunData) -> Sentence:
    settled = all(one.converged_min and one.negative_curvature_proved for one in (row, other))
    figures = (
        f"λmin {number(row.lambda_min)} {_error(row)} with {plain.title}, {number(other.lambda_min)} "
        f"{_error(other)} with "
        f"{sam.title} ({_share(row)} and {_share(other)} of λmax)"
    )
    if not settled:
        return Sentence(
            "comparison", "unknown", f"{name} at the end: {figures}. Not both are settled, so nothing is claimed."
        )
    factor = math.inf if not row.loss or not other.loss else max(row.loss / other.loss, other.loss / row.loss)
    losses = f"class losses {number(row.loss)} and {number(other.loss)}"
    if row.loss is None or other.loss is None or factor > LOSSES_DIFFER:
        return Sentence(
            "comparison",
            "note",
            f"{name} at the end: {figures}. Not at equal loss ({losses}), so this alone does not "
            "tell what SAM does to curvature.",
        )
    shallower = abs(other.lambda_min) < abs(row.lambda_min)
    return Sentence(
        "comparison", "good" if shallower else "bad", f"{name} at the end, at about equal loss ({losses}): {figures}."
    )


def at_equal_loss(one: Sequence[Moment], other: Sequence[Moment], label: int | None) -> tuple[Moment, Moment] | None:
    """The latest two moments whose class losses are equal within 20 % and whose curvature is settled and negative."""

    def rows(course: Sequence[Moment]) -> list[Moment]:
        return [r for r in course if r.label is not None and r.label == label and r.converged and r.proved and r.loss]

    best: tuple[tuple[int, int, int, float], Moment, Moment] | None = None
    for a in rows(one):
        for b in rows(other):
            assert a.loss and b.loss
            apart = abs(math.log(a.loss / b.loss))
            if apart <= math.log(LOSSES_EQUAL):
                key = (min(a.stage, b.stage), min(a.epoch, b.epoch), a.epoch + b.epoch, -apart)
                if best is None or key > best[0]:
                    best = key, a, b
    return None if best is None else best[1:]


def _matched(name: str, moments: tuple[Moment, Moment], plain: RunData, sam: RunData) -> Sentence:
    a, b = moments
    assert a.lambda_min is not None and b.lambda_min is not None
    less = abs(b.lambda_min) < abs(a.lambda_min)
    words = "less" if less else "more"
    return Sentence(
        "comparison",
        "good" if less else "bad",
        f"{name} at equal class loss ({number(a.loss)} after epoch {a.epoch} with {plain.title}, "
        f"{number(b.loss)} after epoch "
        f"{b.epoch} with {sam.title}): λmin {number(a.lambda_min)} and {number(b.lambda_min)}, {words} negative "
        "with SAM.",
    )


def _share(row: Curvature) -> str:
    return "all" if row.nonconvexity is None else percent(100 * row.nonconvexity)


def advice(run: RunData) -> list[Sentence]:
    """From which rho on SAM amplifies the tail's negative directions, as measured."""
    if run.advice is None:
        return []
    tail = [
        row for row in run.advice.classes if row.group == "tail" and row.negative_curvature_proved and row.class_batches
    ]
    if not tail:
        return [
            Sentence(
                "gain",
                "unknown",
                f"{run.title}: no tail class with proved negative curvature, so no radius amplifies any.",
            )
        ]
    found = [row.class_batches.measured_threshold for row in tail if row.class_batches]
    reached = [value for value in found if value is not None]
    largest = max((one.rho for row in tail if row.class_batches for one in row.class_batches.rho), default=0.0)
    if not reached:
        text = (
            "SAM amplifies the negative direction of none of "
            f"{count(len(tail), 'tail class', 'tail classes')} for good up to rho {number(largest)}"
        )
    else:
        text = (
            f"SAM amplifies the negative direction of {len(reached)} of "
            f"{count(len(tail), 'tail class', 'tail classes')} within "
            f"the rho tried, the first from rho {number(min(reached))} on"
        )
    trained = run.advice.trained_with.rho if "sam" in run.advice.trained_with.optimizer else []
    beside = f"; it was trained with rho {listed([number(rho) for rho in trained])}" if trained else ""
    return [
        Sentence("gain", "finding", f"At the weights of {run.title} {text}{beside} (mini-batches of the class alone).")
    ]


def escape(run: RunData) -> list[Sentence]:
    if run.escape is None or run.escape.verdict is None or not run.escape.verdict.text:
        return []
    return [Sentence("escape", "finding", f"Escape experiment from {run.title}: {clean(run.escape.verdict.text)}")]


def overconfidence(run: RunData) -> list[Sentence]:
    if run.predictions is None or not len(run.predictions.labels):
        return []
    found = calibration(run.predictions)
    sure = 100 * float(run.predictions.confidences.mean())
    right = 100 * float((run.predictions.labels == run.predictions.predictions).mean())
    words = (
        "surer than it is right"
        if sure > right + 1
        else "less sure than it is right"
        if sure < right - 1
        else "about as sure as right"
    )
    return [
        Sentence(
            "calibration",
            "bad" if abs(sure - right) > 5 else "note",
            f"{run.title} is {words}: {percent(sure)} sure on average, {percent(right)} right (calibration error "
            f"{percent(100 * found.error)}).",
        )
    ]


def missing(runs: Sequence[RunData]) -> list[Sentence]:
    if any(measured(run) for run in runs):
        return []
    return [Sentence("missing", "unknown", "Curvature was not measured, so nothing is said of saddles.")]


def _balanced(run: RunData) -> float | None:
    return run.result.balanced_accuracy if run.result else None


def _mean(values: Sequence[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None


def _seeds(runs: Sequence[RunData]) -> str:
    return "one seed" if len(runs) == 1 else f"mean of {len(runs)} seeds"
