"""Loss surfaces that can be turned, one class at a time, runs side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saddlescape.report.panels import Plate, Relief
from saddlescape.report.read import RunData, Surface
from saddlescape.report.select import tail_class, telling
from saddlescape.report.text import number

MOST, SIDE_BY_SIDE = 24, 2
AXES = {
    "eigen": ("sharpest direction", "most negative direction"),
    "random": ("second random direction", "random direction"),
}


def surfaces(runs: Sequence[RunData]) -> list[Plate]:
    """A plate for each kind of directions that was measured."""
    plates = []
    for directions in dict.fromkeys(surface.directions for run in runs for surface in run.surfaces):
        plate = _plate(runs, directions)
        if plate is not None:
            plates.append(plate)
    return plates


def _plate(runs: Sequence[RunData], directions: str) -> Plate | None:
    planes = {
        run.name: {s.label: s for s in run.surfaces if s.directions == directions and s.losses.ndim == 2}
        for run in runs
    }
    known = [run for run in runs if planes[run.name]][:SIDE_BY_SIDE]
    if not known:
        return None
    labels = list(dict.fromkeys(label for run in known for label in planes[run.name]))
    shown = telling(known[0], labels, MOST)
    variants = []
    for label in shown:
        items = [(run, planes[run.name][label]) for run in known if label in planes[run.name]]
        variants.append((known[0].class_name(label), _relief(items, directions)))
    tail = tail_class(known[0])
    start = shown.index(tail.label) if tail is not None and tail.label in shown else len(shown) - 1
    caption = (
        "The class's loss around the trained weights (the dot). Drag to turn it, or give the "
        "picture the focus and use the arrow keys; surfaces turn together. "
    )
    caption += (
        "Across runs the directions are each run's own: unit eigenvectors of λmin and λmax. "
        if directions == "eigen"
        else "Directions are random and filter-normalised. "
    )
    caption += "Walls that rise far above the middle are cut off, or they would hide the saddle."
    if len(labels) > len(shown):
        caption += f" {len(shown)} of {len(labels):,} classes are here, from both ends of the frequencies."
    return Plate(
        f"surface-{directions}",
        f"Loss surfaces ({'eigenvectors' if directions == 'eigen' else directions + ' directions'})",
        caption,
        variants,
        "class",
        start,
    )


def cut(surface: Surface) -> float:
    """Losses above are cut off: twice as high above the middle as the line along the most negative direction swings.

    At least as high as a quarter of the grid's points lie, so that a surface without negative curvature is seen too.
    """
    middle = len(surface.betas) // 2
    line = surface.losses[:, middle]
    swing = float(np.nanmax(line) - np.nanmin(line))
    quarter = float(np.nanquantile(surface.losses, 0.25)) - float(np.nanmin(surface.losses))
    return float(np.nanmin(surface.losses)) + max(2 * swing, quarter, 1e-9)


def _relief(items: Sequence[tuple[RunData, Surface]], directions: str) -> Relief:
    x_title, y_title = AXES.get(directions, ("along the second direction", "along the first direction"))
    told = [
        f"{run.title}: loss {number(s.center)} at the weights, from {number(float(s.losses.min()))} to "
        f"{number(float(s.losses.max()))} on the grid, curvature {number(s.curvatures[0])} along the first "
        "direction and "
        f"{number(s.curvatures[1]) if len(s.curvatures) > 1 else 'n/a'} along the second."
        for run, s in items
    ]
    return Relief(
        names=[run.name for run, _ in items],
        x=[s.betas.tolist() for _, s in items],
        y=[s.alphas.tolist() for _, s in items],
        z=[[[float(v) if np.isfinite(v) else None for v in row] for row in s.losses] for _, s in items],
        centers=[s.center for _, s in items],
        cuts=[cut(s) for _, s in items],
        x_title=x_title,
        y_title=y_title,
        text=" ".join(told),
    )
