"""The escape experiment: from one checkpoint on with several optimisers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from saddlescape.records.escape import ArmEpoch, EscapeFile
from saddlescape.report.palette import DASHES, run_colour, symbol
from saddlescape.report.panels import Panel, Picture, Plate, Series, Value
from saddlescape.report.read import RunData
from saddlescape.report.text import clean, number, percent

PANELS: tuple[tuple[str, Callable[[ArmEpoch], Value]], ...] = (
    ("Tail: test accuracy, %", lambda row: row.tail),
    ("Mean λmin of the followed classes", lambda row: row.lambda_min),
    ("Their mean loss", lambda row: row.loss),
    ("Test accuracy, %", lambda row: row.accuracy),
)


def escape(runs: Sequence[RunData]) -> Plate | None:
    """Lines an arm, means over seeds with a band; a run to choose."""
    known = [run for run in runs if run.escape and run.escape.arms]
    if not known:
        return None
    variants = []
    for run in known:
        assert run.escape is not None
        panels = _panels(run.escape)
        if panels:
            variants.append((run.name, Picture(panels, _text(run.escape), columns=2, height=230)))
    caption = (
        "From one checkpoint of a run every optimiser goes on with the same images in the same order. If amplified "
        "negative curvature is why SAM helps the tail, Momentum-SAM, which amplifies it without turning its sign, "
        "should help as much."
    )
    return Plate("escape", "Escaping from the checkpoint", caption, variants, "run") if variants else None


def _panels(found: EscapeFile) -> list[Panel]:
    arms = list(dict.fromkeys(arm.arm for arm in found.arms))
    panels = []
    for title, pick in PANELS:
        series = []
        for index, name in enumerate(arms):
            places: dict[int, list[float]] = {}
            for arm in found.arms:
                for row in arm.epochs if arm.arm == name else []:
                    value = pick(row)
                    if value is not None:
                        places.setdefault(row.epoch, []).append(value)
            if not places:
                continue
            xs = sorted(places)
            several = any(len(values) > 1 for values in places.values())
            low: list[Value] | None = [min(places[x]) for x in xs] if several else None
            high: list[Value] | None = [max(places[x]) for x in xs] if several else None
            series.append(
                Series(
                    clean(name),
                    [float(x) for x in xs],
                    [sum(places[x]) / len(places[x]) for x in xs],
                    "line",
                    run_colour(index),
                    DASHES[(index // 8) % 4],
                    symbol(index),
                    low=low,
                    high=high,
                    markers=True,
                    size=6,
                )
            )
        if series:
            panels.append(Panel(title, series, x_title="epochs after the checkpoint"))
    return panels


def _text(found: EscapeFile) -> str:
    told = []
    for arm in found.arms:
        if arm.problem:
            told.append(f"{clean(arm.arm)}, seed {arm.seed}: {clean(arm.problem)}.")
        elif arm.epochs:
            first, last = arm.epochs[0], arm.epochs[-1]
            told.append(
                f"{clean(arm.arm)}, seed {arm.seed}: tail from {percent(first.tail)} to {percent(last.tail)}, "
                "λmin from "
                f"{number(first.lambda_min)} to {number(last.lambda_min)}."
            )
    verdict = f" {clean(found.verdict.text)}" if found.verdict and found.verdict.text else ""
    return " ".join(told) + verdict
