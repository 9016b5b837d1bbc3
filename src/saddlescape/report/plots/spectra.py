"""Spectral densities of class losses, the negative part marked: head against tail, without SAM and with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from saddlescape.density import density
from saddlescape.records.curvature import Curvature
from saddlescape.report.drawing import Figure, Mark, Panel, Panels, Series
from saddlescape.report.read import Nodes, RunData
from saddlescape.report.select import both_ends, head_class, looks, tail_class
from saddlescape.report.text import number, percent, short

POINTS = 900
MOST = 24  # classes to choose from
SHARE = 1 / 400  # bandwidth beside the range shown, which is what a figure resolves


class ClassSpectrum(NamedTuple):
    run: RunData
    row: Curvature
    nodes: Nodes


def bandwidth(low: float, high: float) -> float:
    """One bandwidth for all that is shown side by side."""
    return max(SHARE * (high - low), 1e-12)


def spectra(runs: Sequence[RunData]) -> Figure | None:
    """The most frequent class beside the tail class, a row a run; then each class to choose, a panel a run.

    The tail class is that of the first run (the one with the greatest |lambda_min / lambda_max|), so that runs are
    compared on one class. All panels of a drawing have the same axes.
    """
    known = _with_spectra(runs)
    if not known:
        return None
    ends = [row.label for row in (head_class(known[0]), tail_class(known[0])) if row is not None]
    items = [item for run in known for label in ends if (item := _found(run, label))]
    variants = []
    if items:
        titles = [_class(item) + (f", {item.run.title}" if len(known) > 1 else "") for item in items]
        variants.append(("head against tail", _drawing(items, titles, False, columns=len(ends), height=170)))
    saved = dict.fromkeys(row.label for run in known for row in run.measured if row.file and row.label is not None)
    for label in both_ends(known[0], list(saved), MOST):
        if items := [item for run in known if (item := _found(run, label))]:
            drawing = _drawing(items, [item.run.name for item in items], True, columns=1, height=170)
            variants.append((f"class {known[0].class_name(label)}", drawing))
    if not variants:
        return None
    loss = known[0].curvature.settings.get("loss", "ce") if known[0].curvature else "ce"
    named = "cross-entropy on the raw logits" if loss == "ce" else "each run's own training loss"
    caption = (
        f"Eigenvalues of the Hessian of one class's mean loss ({named}), smoothed by 1/400 of the range; logarithmic "
        "height. Left of zero, shaded, the loss curves downwards: the deeper it reaches beside the right end, the more "
        "of a saddle."
    )
    return Figure("spectra", "Spectral density", caption, variants, "what is shown")


def _with_spectra(runs: Sequence[RunData]) -> list[RunData]:
    return [run for run in runs if any(row.file for row in run.measured)]


def _found(run: RunData, label: int | None) -> ClassSpectrum | None:
    row = next((row for row in run.measured if row.label == label), None)
    nodes = run.spectrum(row) if row else None
    return ClassSpectrum(run, row, nodes) if row and nodes else None


def _class(item: ClassSpectrum) -> str:
    group = f" ({item.row.group})" if item.row.group else ""
    return f"class {short(item.run.class_name(item.row.label), 22)}{group}"


def _drawing(
    items: Sequence[ClassSpectrum], titles: Sequence[str], by_run: bool, columns: int, height: int
) -> Panels:
    """Panels on the same axes, with a view around zero."""
    panels = _panels(items, titles, by_run)
    low, high = panels[0].x_ends
    near = 1.5 * max(-min(item.row.lambda_min for item in items), 0.02 * (high - low))
    ranges = {"whole spectrum": (low, high), "around zero": (-near, near)}
    text = " ".join(f"{item.run.title}: {_words(item)}" for item in items)
    return Panels(panels, text, columns=columns, height=height, shared_x=True, shared_y=True, ranges=ranges)


def _panels(items: Sequence[ClassSpectrum], titles: Sequence[str], by_run: bool) -> list[Panel]:
    """``by_run``: coloured by run, else by group."""
    # From below the least to above the greatest eigenvalue seen, with room at both ends.
    low = min(min(item.row.lambda_min, float(item.nodes.values.min())) for item in items)
    high = max(max(item.row.lambda_max, float(item.nodes.values.max())) for item in items)
    room = 0.04 * (high - low) or 1e-9
    low, high = min(low, 0.0) - room, max(high, 0.0) + room
    sigma = bandwidth(low, high)
    grid = np.linspace(low, high, POINTS)
    curves = [density(*item.nodes, grid=grid, sigma=sigma)[1] for item in items]
    # One eigenvalue of P has a mass of 1 / P; a hundredth of its peak is where the figure ends.
    params = max((item.row.num_params or 0) for item in items) or 100_000
    floor = 0.01 / params / (sigma * math.sqrt(2 * math.pi))
    top = max(*(float(curve.max()) for curve in curves), floor * 10)
    style, negative = looks([item.run for item in items]), grid <= 0
    panels = []
    for item, title, curve in zip(items, titles, np.maximum(curves, floor), strict=True):
        row = item.row
        colour, name = (style[item.run.name]["colour"], item.run.title) if by_run else (row.group or "ink", row.group)
        whole = Series(name or _class(item), grid.tolist(), curve.tolist(), "area", colour, width=1.4, legend=False)
        x, y = grid[negative].tolist(), curve[negative].tolist()
        below = Series("negative part", x, y, "area", "negative", width=1.6)
        mark = Mark(row.lambda_min, f"λmin {number(row.lambda_min)}{'' if row.converged_min else ' (not settled)'}",
                    "negative" if row.lambda_min < 0 else "muted")  # fmt: skip
        panels.append(
            Panel(title, [whole, below], x_title="eigenvalue λ", y_title="density", y_scale="log", x_range=(low, high),
                  y_range=(floor, 60 * top), v_marks=[mark], shaded=(low, 0.0))
        )  # fmt: skip
    return panels


def _words(item: ClassSpectrum) -> str:
    mass = item.row.negative_mass
    share = ""
    if mass and mass[1] - mass[0] < 0.5:  # a wider interval is no information
        share = f", with {percent(100 * mass[0], 0)} to {percent(100 * mass[1], 0)} of the eigenvalues negative"
    return (
        f"class {short(item.run.class_name(item.row.label))} reaches from {number(item.row.lambda_min)} to "
        f"{number(item.row.lambda_max)}{share}."
    )
