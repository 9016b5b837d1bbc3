"""Which runs and classes a picture shows where there are more than a person can look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saddlescape.records.curvature import Curvature
from saddlescape.report import table
from saddlescape.report.palette import dash, run_colour, symbol
from saddlescape.report.read import RunData

DETAILED = 4  # runs whose single parts are shown


@dataclass(frozen=True)
class Look:
    """How a run is drawn: a method has a colour, its further seeds another dash."""

    colour: str
    dash: str
    symbol: str


def by_method(runs: Sequence[RunData]) -> dict[str, list[RunData]]:
    """Title of the method -> its runs (seeds), in order of appearance."""
    found: dict[str, list[RunData]] = {}
    for run in runs:
        found.setdefault(run.title, []).append(run)
    return found


def looks(runs: Sequence[RunData]) -> dict[str, Look]:
    """By the run's name and by the method's title."""
    found: dict[str, Look] = {}
    for index, (title, seeds) in enumerate(by_method(runs).items()):
        found[title] = Look(run_colour(index), "solid", symbol(index))
        for number, run in enumerate(seeds):
            found[run.name] = Look(run_colour(index), dash(number), symbol(index))
    return found


def richness(run: RunData) -> int:
    """How many of the parts that make pictures a run has."""
    parts = (run.curvature, run.course, run.advice, run.surfaces, run.predictions, run.escape)
    return sum(bool(part) for part in parts)


def detailed(runs: Sequence[RunData], most: int = DETAILED) -> list[RunData]:
    """The runs with the most parts, one of each method first; at most ``most``, in their own order."""
    first = {id(seeds and max(seeds, key=richness)) for seeds in by_method(runs).values()}
    order = sorted(range(len(runs)), key=lambda i: (-richness(runs[i]), id(runs[i]) not in first, i))
    one_each = [i for i in order if id(runs[i]) in first]
    rest = [i for i in order if id(runs[i]) not in first and richness(runs[i])]
    return [runs[i] for i in sorted((one_each + rest)[:most])]


def pairs(runs: Sequence[RunData]) -> list[tuple[RunData, RunData]]:
    """(without SAM, the same with SAM): the same words, seed, images and network."""
    found = []
    for plain in runs:
        words = plain.method.split("+")
        if "sam" in words:
            continue
        for other in runs:
            same = sorted(word for word in other.method.split("+") if word != "sam") == sorted(words)
            if same and "sam" in other.method.split("+") and comparable(plain, other) and plain.seed == other.seed:
                found.append((plain, other))
                break
    return found


def comparable(one: RunData, other: RunData) -> bool:
    """Same training and test images, network and length: figures may be held against each other."""
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
    rows = measured(run)
    place = {label: i for i, label in enumerate(ranked(run))}
    return min(rows, key=lambda row: place.get(row.label or 0, len(place)), default=None)


def tail_class(run: RunData) -> Curvature | None:
    """The tail class (without groups: any but the most frequent) with the greatest |lambda_min / lambda_max|."""
    rows, head = measured(run), head_class(run)
    tail = [row for row in rows if row.group == "tail"] or [row for row in rows if row is not head]
    return max(tail, key=lambda row: row.nonconvexity or 0.0, default=None)


def measured(run: RunData) -> list[Curvature]:
    return [row for row in run.curvature.classes if row.label is not None] if run.curvature else []


def telling(run: RunData, labels: Sequence[int], most: int) -> list[int]:
    """At most ``most`` of ``labels``, the frequent and the rare ends first, in order of frequency."""
    wanted = set(labels)
    order = [label for label in ranked(run) if label in wanted]
    known = set(order)
    order += [label for label in labels if label not in known]
    if len(order) <= most:
        return order
    front = most // 3
    return order[:front] + order[len(order) - (most - front) :]
