"""Spectral densities of class losses, the negative part marked: head against tail, without SAM and with it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saddlescape.records.curvature import Curvature
from saddlescape.report.density import bandwidth, density
from saddlescape.report.panels import Mark, Panel, Picture, Plate, Series
from saddlescape.report.read import RunData, Spectrum
from saddlescape.report.select import head_class, looks, measured, tail_class, telling
from saddlescape.report.text import number, percent, short

POINTS = 900
MOST = 24  # classes to choose from
Found = tuple[RunData, Curvature, Spectrum]


def side_by_side(runs: Sequence[RunData]) -> Plate | None:
    """A row of panels a run: its most frequent class beside its tail class; the same classes and axes for all.

    The tail class is that of the first run (the one with the greatest |lambda_min / lambda_max|), so that runs are
    compared on one class.
    """
    known = [run for run in runs if _has_spectra(run)]
    if not known:
        return None
    head, tail = head_class(known[0]), tail_class(known[0])
    labels = [row.label for row in (head, tail) if row is not None]
    found = [[_found(run, label) for label in labels] for run in known]
    panels = _panels([item for row in found for item in row if item], with_run=len(known) > 1)
    if not panels:
        return None
    told = [f"{item[0].title}: {_told(item[0], item[1])}" for line in found for item in line if item]
    picture = Picture(panels, " ".join(told), columns=len(labels), height=220, shared_x=True, shared_y=True,
                      ranges=_ranges(panels))  # fmt: skip
    return Plate("spectra", "Spectral density: head against tail", _caption(known, panels), [("", picture)])


def by_class(runs: Sequence[RunData]) -> Plate | None:
    """One class at a time, all runs on the same axes; the class is chosen from a list."""
    known = [run for run in runs if _has_spectra(run)]
    if not known:
        return None
    labels = list(
        dict.fromkeys(row.label for run in known for row in measured(run) if row.file and row.label is not None)
    )
    labels = telling(known[0], labels, MOST)
    variants = []
    for label in labels:
        items = [item for item in (_found(run, label) for run in known) if item]
        panels = _panels(items, with_run=True, by_run=True)
        if panels:
            text = " ".join(f"{run.title}: {_told(run, row)}" for run, row, _ in items)
            variants.append(
                (
                    known[0].class_name(label),
                    Picture(panels, text, height=200, shared_x=True, shared_y=True, ranges=_ranges(panels)),
                )
            )
    if not variants:
        return None
    tail = tail_class(known[0])
    names = [name for name, _ in variants]
    wanted = known[0].class_name(tail.label) if tail is not None and tail.label is not None else ""
    start = names.index(wanted) if wanted in names else len(names) - 1
    caption = "The whole spectrum of one class's loss with each run, on the same axes."
    total = len({row.label for run in known for row in measured(run)})
    if total > len(variants):
        caption += f" {len(variants)} of {total:,} classes are here, from both ends of the frequencies."
    return Plate("spectra-by-class", "Spectral density, class by class", caption, variants, "class", start)


def _has_spectra(run: RunData) -> bool:
    return any(row.file for row in measured(run))


def _found(run: RunData, label: int | None) -> Found | None:
    row = next((row for row in measured(run) if row.label == label), None)
    spectrum = run.spectrum(row) if row is not None else None
    return (run, row, spectrum) if row is not None and spectrum is not None else None


def span(spectra: Sequence[tuple[Curvature, Spectrum]]) -> tuple[float, float]:
    """From below the least to above the greatest eigenvalue seen, with room at both ends."""
    low = min(min(row.lambda_min, float(found.values.min())) for row, found in spectra)
    high = max(max(row.lambda_max, float(found.values.max())) for row, found in spectra)
    room = 0.04 * (high - low) or 1e-9
    return min(low, 0.0) - room, max(high, 0.0) + room


def curve(found: Spectrum, low: float, high: float) -> tuple[np.ndarray, np.ndarray, float]:
    """(grid [POINTS], density [POINTS], floor): nothing below the floor could be told from no eigenvalue at all."""
    sigma = bandwidth(low, high)
    grid = np.linspace(low, high, POINTS)
    return grid, density(found.values, found.weights, grid, sigma), sigma


def _panels(items: Sequence[Found], with_run: bool, by_run: bool = False) -> list[Panel]:
    if not items:
        return []
    low, high = span([(row, found) for _, row, found in items])
    sigma = bandwidth(low, high)
    # One eigenvalue of P has a mass of 1 / P; a hundredth of its peak is where the picture ends.
    params = max((row.num_params or 0) for _, row, _ in items) or 100_000
    floor = 0.01 / params / (sigma * np.sqrt(2 * np.pi))
    style = looks([run for run, _, _ in items])
    panels = []
    for run, row, found in items:
        grid, values, _ = curve(found, low, high)
        shown = np.maximum(values, floor)
        negative = grid <= 0
        colour = style[run.name].colour if by_run else (row.group or "ink")
        name = f"class {short(run.class_name(found.label), 22)}"
        title = f"{name}{f' ({row.group})' if row.group else ''}" + (f", {run.title}" if with_run else "")
        if by_run:
            title = run.name
        line = Series(run.title if by_run else row.group or name, grid.tolist(), shown.tolist(), "area", colour,
                      width=1.4, legend=False)  # fmt: skip
        below = Series(
            "negative part", grid[negative].tolist(), shown[negative].tolist(), "area", "negative", width=1.6
        )
        marks = [Mark(row.lambda_min, f"λmin {number(row.lambda_min)}{'' if row.converged_min else ' (not settled)'}",
                      "negative" if row.lambda_min < 0 else "muted")]  # fmt: skip
        top = float(max(density_peak(items, low, high), floor * 10))
        panels.append(
            Panel(title, [line, below], x_title="eigenvalue λ", y_title="density", y_scale="log", x_range=(low, high),
                  y_range=(floor, 60 * top), v_marks=marks, shaded=(low, 0.0))
        )  # fmt: skip
    return panels


def density_peak(items: Sequence[Found], low: float, high: float) -> float:
    return max(float(curve(found, low, high)[1].max()) for _, _, found in items)


def _ranges(panels: Sequence[Panel]) -> dict[str, tuple[float, float]]:
    low, high = panels[0].x_range or (0.0, 1.0)
    least = min(mark.at for panel in panels for mark in panel.v_marks)
    near = 1.5 * max(-least, 0.02 * (high - low))
    return {"whole spectrum": (low, high), "around zero": (-near, near)}


def _told(run: RunData, row: Curvature) -> str:
    mass = row.negative_mass
    share = ""
    if mass and mass[1] - mass[0] < 0.5:  # a wider interval says nothing
        share = f", with {percent(100 * mass[0], 0)} to {percent(100 * mass[1], 0)} of the eigenvalues negative"
    return (
        f"class {short(run.class_name(row.label or 0))} reaches from {number(row.lambda_min)} to "
        f"{number(row.lambda_max)}{share}."
    )


def _caption(runs: Sequence[RunData], panels: Sequence[Panel]) -> str:
    low, high = panels[0].x_range or (0.0, 1.0)
    loss = runs[0].curvature.settings.get("loss", "ce") if runs[0].curvature else "ce"
    named = "cross-entropy on the raw logits" if loss == "ce" else "each run's own training loss"
    return (
        f"How the eigenvalues of the Hessian of one class's mean loss ({named}) are spread. Left of zero, shaded, the "
        f"loss curves downwards: the deeper it reaches beside the right end, the more of a saddle. Logarithmic height; "
        f"smoothed by {number(bandwidth(low, high), 2)} (1/400 of the range), the same everywhere."
    )
