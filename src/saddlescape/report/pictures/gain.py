"""SAM's gain over rho along each class's most negative direction, measured and to first order."""

from __future__ import annotations

from collections.abc import Sequence

from saddlescape.records.rho_advice import Advice, Gain
from saddlescape.report.palette import run_colour, symbol
from saddlescape.report.panels import Mark, Panel, Picture, Plate, Series, Value
from saddlescape.report.read import RunData
from saddlescape.report.text import listed, number, short

MOST = 8
KINDS = (
    ("class_batches", "Mini-batches of the class alone"),
    ("training_batches", "Mini-batches as training draws them"),
)


def gain(runs: Sequence[RunData]) -> Plate | None:
    """Two panels a run; hollow where the component's sign is turned round."""
    known = [run for run in runs if run.advice and _rows(run)]
    if not known:
        return None
    caption = (
        "By how much SAM multiplies the squared gradient along a class's most negative direction, against its radius "
        "rho (both logarithmic). Above the line at 1 SAM amplifies; hollow points: the component's sign is "
        "turned round. "
        "Dotted: what theory predicts to first order."
    )
    variants = []
    for run in known:
        assert run.advice is not None
        trained = run.advice.trained_with.rho if "sam" in run.advice.trained_with.optimizer else []
        panels = []
        for kind, title in KINDS:
            series = []
            for index, row in enumerate(_rows(run)):
                series += _lines(row, getattr(row, kind), index, run)
            if series:
                panels.append(
                    Panel(title, series, x_title="rho", x_scale="log", y_scale="log",
                          h_marks=[Mark(1.0, "", "muted")],
                          v_marks=[Mark(rho, "trained with") for rho in dict.fromkeys(trained) if rho > 0])
                )  # fmt: skip
        if panels:
            variants.append((run.name, Picture(panels, _text(run), columns=2, height=280, shared_y=True)))
    return Plate("gain", "SAM's gain over rho", caption, variants, "run") if variants else None


def _rows(run: RunData) -> list[Advice]:
    """Rows with proved negative curvature, the deepest first; at most ``MOST``."""
    assert run.advice is not None
    rows = [row for row in run.advice.classes if row.negative_curvature_proved]
    return sorted(rows, key=lambda row: row.lambda_min)[:MOST]


def _lines(row: Advice, found: Gain | None, index: int, run: RunData) -> list[Series]:
    if found is None or not found.rho:
        return []
    name = f"{short(run.class_name(row.label), 20)}{f' ({row.group})' if row.group else ''}"
    x = [one.rho for one in found.rho]
    measured: list[Value] = [one.gain if one.gain else None for one in found.rho]
    predicted: list[Value] = [one.predicted_gain if one.predicted_gain else None for one in found.rho]
    words = [f"{name}: {number(one.gain)} times at rho {number(one.rho)}{', sign turned round' if one.sign < 0 else ''}"
             for one in found.rho]  # fmt: skip
    colour = run_colour(index)
    return [
        Series(name, x, predicted, "line", colour, "dot", width=1.0, legend=False),
        Series(name, x, measured, "line", colour, markers=True, symbol=symbol(index), size=7, words=words,
               hollow=[one.sign < 0 for one in found.rho]),
    ]  # fmt: skip


def _text(run: RunData) -> str:
    told = []
    for row in _rows(run):
        found = row.class_batches
        if found is None or found.problem:
            continue
        where = (
            f"from rho {number(found.measured_threshold)}"
            if found.measured_threshold
            else "at none of the rho tried up to the largest"
        )
        told.append(f"{short(run.class_name(row.label))} {where}")
    return f"With mini-batches of the class alone the direction is amplified for good: {listed(told)}."
