"""Which runs and classes a figure shows where there are more than a person can look at, and how they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saddlescape.records.course import Followed
from saddlescape.records.curvature import Curvature
from saddlescape.report import table
from saddlescape.report.palette import look
from saddlescape.report.read import RunData

DETAILED = 4  # runs of which spectra, courses, surfaces and predictions are shown


def by_method(runs: Sequence[RunData]) -> dict[str, list[RunData]]:
    """Title of the method -> its runs (seeds), in order of appearance."""
    found: dict[str, list[RunData]] = {}
    for run in runs:
        found.setdefault(run.title, []).append(run)
    return found


def looks(runs: Sequence[RunData]) -> dict[str, dict[str, Any]]:
    """``colour``, ``dash`` and ``symbol`` by the run's name and by the method's title: a method has a colour, its
    further seeds another dash."""
    found: dict[str, dict[str, Any]] = {}
    for index, (title, seeds) in enumerate(by_method(runs).items()):
        for number, name in enumerate([title, *(run.name for run in seeds)]):
            found.setdefault(name, look(index, max(0, number - 1)))
    return found


def richness(run: RunData) -> int:
    """How many of the measurements that make figures a run has."""
    found = (run.curvature, run.course, run.advice, run.surfaces, run.predictions, run.escape)
    return sum(map(bool, found))


def detailed(runs: Sequence[RunData]) -> list[RunData]:
    """The runs with the most measurements, one of each method first; at most ``DETAILED``, in their own order."""
    first = {id(max(seeds, key=richness)) for seeds in by_method(runs).values()}
    chosen = [run for run in runs if id(run) in first or richness(run)]
    best = sorted(chosen, key=lambda run: (id(run) not in first, -richness(run)))[:DETAILED]
    return [run for run in runs if any(run is one for one in best)]


def pairs(runs: Sequence[RunData]) -> list[tuple[RunData, RunData]]:
    """(without SAM, the same with SAM): the same words, seed, images and network."""
    with_sam = [run for run in runs if run.base != run.method]
    partners = [
        (plain, next((sam for sam in with_sam if _same_words(plain, sam) and comparable(plain, sam)), None))
        for plain in runs
        if plain.base == plain.method
    ]
    return [(plain, sam) for plain, sam in partners if sam is not None]


def _same_words(plain: RunData, sam: RunData) -> bool:
    return sorted(plain.base.split("+")) == sorted(sam.base.split("+")) and plain.seed == sam.seed


def comparable(one: RunData, other: RunData) -> bool:
    """Same training and test images, network and length: figures may be compared."""
    if one.result is None or other.result is None:
        return False
    held = {one.result.held_hash, other.result.held_hash} - {""}  # older results have none
    return len(held) < 2 and (one.result.draw_hash, one.result.model, one.result.epochs) == (
        other.result.draw_hash, other.result.model, other.result.epochs,
    )  # fmt: skip


def in_common(runs: Sequence[RunData]) -> list[RunData]:
    """The finished runs on the images and the network that most have: those which may be ranked."""
    done = [run for run in runs if run.result]
    alike = table.comparable([run.raw_result or {} for run in done])
    return [run for run, one in zip(done, alike, strict=True) if one]


def ranked(run: RunData) -> list[int]:
    """Labels, the most frequent class first."""
    counts = run.counts
    return sorted(range(len(run.classes)), key=lambda label: (-(counts[label] if counts else 0), label))


def head_class(run: RunData) -> Curvature | None:
    """The most frequent class that was measured."""
    place = {label: i for i, label in enumerate(ranked(run))}
    return min(run.measured, key=lambda row: place.get(row.label or 0, len(place)), default=None)


def tail_class(run: RunData) -> Curvature | None:
    """The tail class (without groups: any but the most frequent) with the greatest |lambda_min / lambda_max|."""
    rows, head = run.measured, head_class(run)
    tail = [row for row in rows if row.group == "tail"] or [row for row in rows if row is not head]
    return max(tail, key=lambda row: row.nonconvexity or 0.0, default=None)


def ratio(row: Curvature | Followed) -> float | None:
    """|lambda_min / lambda_max| in percent; None where it is infinite."""
    return None if row.nonconvexity is None else 100 * row.nonconvexity


def both_ends(run: RunData, labels: Sequence[int], most: int) -> list[int]:
    """At most ``most`` of ``labels``, in order of frequency: a third from the frequent end, the rest from the rare."""
    place = {label: i for i, label in enumerate(ranked(run))}
    order = sorted(labels, key=lambda label: place.get(label, len(place)))
    return order if len(order) <= most else order[: most // 3] + order[len(order) - (most - most // 3) :]
