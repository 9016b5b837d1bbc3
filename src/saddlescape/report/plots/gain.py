"""SAM's gain over rho along each class's most negative direction, measured and to first order."""

from __future__ import annotations

from collections.abc import Sequence

from saddlescape.records.rho_advice import Advice
from saddlescape.report.drawing import Figure, Mark, Panel, Panels, Series
from saddlescape.report.palette import look
from saddlescape.report.read import RunData
from saddlescape.report.text import listed, number, short

MOST = 8
PANELS = (
    ("class_batches", "Mini-batches of the class alone"),
    ("training_batches", "Mini-batches as training draws them"),
)


def gain(runs: Sequence[RunData]) -> Figure | None:
    """Two panels a run; hollow where the component changes its sign."""
    caption = (
        "By how much SAM multiplies the squared gradient along a class's most negative direction, against its radius "
        "rho (both logarithmic). Above the line at 1 SAM amplifies; hollow points: the component changes its "
        "sign. Dotted: what theory predicts to first order."
    )
    variants = [
        (run.name, Panels(panels, _text(run), columns=2, height=280, shared_y=True))
        for run in runs
        if (panels := _panels(run))
    ]
    return Figure("gain", "SAM's gain over rho", caption, variants, "run") if variants else None


def _panels(run: RunData) -> list[Panel]:
    panels = []
    trained = [Mark(rho, "trained with") for rho in dict.fromkeys(run.sam_radii) if rho > 0]
    for kind, title in PANELS:
        series = [line for index, row in enumerate(_rows(run)) for line in _lines(run, row, kind, index)]
        if series:
            panels.append(
                Panel(title, series, x_title="rho", x_scale="log", y_scale="log", h_marks=[Mark(1.0, "", "muted")],
                      v_marks=trained)
            )  # fmt: skip
    return panels


def _rows(run: RunData) -> list[Advice]:
    """Rows with proved negative curvature, the deepest first; at most ``MOST``."""
    rows = [row for row in run.advice.classes if row.negative_curvature_proved] if run.advice else []
    return sorted(rows, key=lambda row: row.lambda_min)[:MOST]


def _lines(run: RunData, row: Advice, kind: str, index: int) -> list[Series]:
    found = getattr(row, kind)
    if found is None or not found.rho:
        return []
    name = f"{short(run.class_name(row.label), 20)}{f' ({row.group})' if row.group else ''}"
    x = [one.rho for one in found.rho]
    words = [f"{name}: {number(one.gain)} times at rho {number(one.rho)}{', other sign' if one.sign < 0 else ''}"
             for one in found.rho]  # fmt: skip
    predicted = [one.predicted_gain or None for one in found.rho]  # 0 has no place on a logarithmic axis
    measured = [one.gain or None for one in found.rho]
    hollow = [one.sign < 0 for one in found.rho]
    style = look(index)
    return [
        Series(name, x, predicted, colour=style["colour"], dash="dot", width=1.0, legend=False),
        Series(name, x, measured, **style, markers=True, words=words, hollow=hollow),
    ]


def _text(run: RunData) -> str:
    words = []
    for row in _rows(run):
        found = row.class_batches
        if found is None or found.problem:
            continue
        at = found.measured_threshold
        where = f"from rho {number(at)}" if at else "at none of the rho tried up to the largest"
        words.append(f"{short(run.class_name(row.label))} {where}")
    return f"With mini-batches of the class alone the direction is amplified for good: {listed(words)}."
