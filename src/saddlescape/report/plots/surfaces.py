"""Loss surfaces that can be turned, one class at a time, runs side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saddlescape.report.drawing import Figure, Mark, Panel, Relief, Series
from saddlescape.report.read import ClassSurface, RunData
from saddlescape.report.select import both_ends, looks, tail_class
from saddlescape.report.text import number, rounded

MOST, SIDE_BY_SIDE = 24, 2
AXES = {
    "eigen": ("along λmax", "along λmin"),
    "random": ("second direction", "first direction"),
}


def surfaces(runs: Sequence[RunData]) -> list[Figure]:
    """A figure for each kind of directions that was measured."""
    kinds = dict.fromkeys(surface.directions for run in runs for surface in run.surfaces)
    return [figure for directions in kinds if (figure := _figure(runs, directions))]


def _figure(runs: Sequence[RunData], directions: str) -> Figure | None:
    planes = {
        run.name: {s.label: s for s in run.surfaces if s.directions == directions and s.losses.ndim == 2}
        for run in runs
    }
    known = [run for run in runs if planes[run.name]][:SIDE_BY_SIDE]
    if not known:
        return None
    labels = list(dict.fromkeys(label for run in known for label in planes[run.name]))
    shown = both_ends(known[0], labels, MOST)
    variants = []
    for label in shown:
        items = [(run, planes[run.name][label]) for run in known if label in planes[run.name]]
        variants.append((known[0].class_name(label), _relief(items, directions)))
    tail = tail_class(known[0])
    start = shown.index(tail.label) if tail is not None and tail.label in shown else len(shown) - 1
    eigen = directions == "eigen"
    caption = (
        "The class's loss around the trained weights (the dot), on one vertical scale; beside it the slice along the "
        + ("lowest eigenvector. Directions are each run's own unit eigenvectors. " if eigen else "first direction. ")
        + ("" if eigen else "Directions are random and filter-normalised. ")
        + "Drag to turn, or focus the figure and use the arrow keys. High walls are cut off."
    )
    if len(labels) > len(shown):
        caption += f" {len(shown)} of {len(labels):,} classes are here, from both ends of the frequencies."
    title = f"Loss surfaces ({'eigenvectors' if eigen else directions + ' directions'})"
    return Figure(f"surface-{directions}", title, caption, variants, "class", start)


def cut(surface: ClassSurface) -> float:
    """Losses above are cut off: 1.5 times what the line along the most negative direction swings.

    At least as high as a quarter of the grid's points lie, so that a surface without negative curvature is seen too.
    """
    line = surface.losses[:, len(surface.betas) // 2]
    least = float(np.nanmin(surface.losses))
    swing = float(np.nanmax(line) - np.nanmin(line))
    return least + max(1.5 * swing, float(np.nanquantile(surface.losses, 0.25)) - least, 1e-9)


def _relief(items: Sequence[tuple[RunData, ClassSurface]], directions: str) -> Relief:
    x_title, y_title = AXES.get(directions, ("along the second direction", "along the first direction"))
    style = looks([run for run, _ in items])
    lines = [
        Series(run.name, s.alphas.tolist(), [rounded(float(v), 17) for v in s.losses[:, len(s.betas) // 2]],
               **style[run.name] | {"dash": "solid"}, markers=len(s.alphas) < 30, size=5)
        for run, s in items
    ]  # fmt: skip
    first = "lowest eigenvector" if directions == "eigen" else "first direction"
    slice_ = Panel(f"Loss along the {first}", lines, x_title="distance from the weights",
                   v_marks=[Mark(0.0, "")])  # fmt: skip
    words = [
        f"{run.title}: loss {number(s.center)} at the weights, from {number(float(s.losses.min()))} to "
        f"{number(float(s.losses.max()))} on the grid, curvature {number(s.curvatures[0])} along the first direction "
        f"and {number(s.curvatures[1]) if len(s.curvatures) > 1 else 'n/a'} along the second."
        for run, s in items
    ]
    return Relief(
        names=[run.name for run, _ in items],
        x=[s.betas.tolist() for _, s in items],
        y=[s.alphas.tolist() for _, s in items],
        z=[[[rounded(float(v), 17) for v in row] for row in s.losses] for _, s in items],
        centers=[s.center for _, s in items],
        ends=(min(float(np.nanmin(s.losses)) for _, s in items), max(cut(s) for _, s in items)),
        slice=slice_,
        x_title=x_title,
        y_title=y_title,
        text=" ".join(words),
    )
