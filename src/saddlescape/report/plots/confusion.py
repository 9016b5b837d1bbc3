"""Which classes are confused with which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saddlescape.errors import counted
from saddlescape.records.predictions import Predictions
from saddlescape.report.drawing import Figure, Heatmap, Value
from saddlescape.report.read import GROUPS, RunData
from saddlescape.report.select import ranked
from saddlescape.report.text import label, listed, percent, short

MOST = 40


def confusion(runs: Sequence[RunData]) -> Figure | None:
    """A matrix a run; over ``MOST`` classes, of head, mid and tail."""
    known = [run for run in runs if run.predictions]
    if not known:
        return None
    caption = "In percent of the test images of a true class (a row); counts appear at the pointer; "
    grouped = len(known[0].classes) > MOST
    caption += "by group, since there are too many classes to show" if grouped else "the most frequent class first"
    variants = [(run.name, heatmap) for run in known if (heatmap := _heatmap(run))]
    return Figure("confusion", "Confusion", caption + ".", variants, "run")


def matrix_of(found: Predictions, place: np.ndarray, size: int) -> np.ndarray:
    """Images int64 [size, size], true rows and predicted columns; ``place`` [C]: row of each class, -1 is left out."""
    true, taken = place[found.labels], place[found.predictions]
    kept = (true >= 0) & (taken >= 0)
    return np.bincount(true[kept] * size + taken[kept], minlength=size * size).reshape(size, size)


def _heatmap(run: RunData) -> Heatmap | None:
    """None where the classes are many and their groups are unknown."""
    if run.predictions is None or (len(run.classes) > MOST and run.groups is None):
        return None
    rows = [(run.classes[c], [c]) for c in ranked(run)]
    if len(run.classes) > MOST:
        rows = [(name, (run.groups or {})[name]) for name in GROUPS]
    names = [name for name, _ in rows]
    place = np.full(len(run.classes), -1)
    for index, (_, members) in enumerate(rows):
        place[members] = index
    matrix = matrix_of(run.predictions, place, len(rows))
    words = [
        [f"{label(a)} predicted as {label(b)}: {matrix[i, j]} of {counted(int(matrix[i].sum()), 'test image')}"
         for j, b in enumerate(names)]
        for i, a in enumerate(names)
    ]  # fmt: skip
    right = 100 * np.trace(matrix) / max(matrix.sum(), 1)
    text = f"{percent(right)} of the images lie on the diagonal. Confused most often: {listed(most_confused(run))}."
    shown = [short(name, 18) for name in names]
    z: list[list[Value]] = [[100 * float(n) / row.sum() if row.any() else None for n in row] for row in matrix]
    return Heatmap(z, shown, shown, "predicted as", "true class", words, text)


def most_confused(run: RunData, most: int = 3) -> list[str]:
    """ "truck as automobile (12 % of truck)": the pairs of classes that are confused in most images."""
    assert run.predictions is not None
    size = len(run.classes)
    labels, predictions = run.predictions.labels, run.predictions.predictions
    wrong = labels != predictions
    pairs, counts = np.unique(labels[wrong] * size + predictions[wrong], return_counts=True)
    totals = np.bincount(labels, minlength=size)
    words = []
    for index in np.argsort(-counts, kind="stable")[:most]:
        true, taken = divmod(int(pairs[index]), size)
        name, share = short(run.classes[true]), percent(100 * counts[index] / totals[true], 0)
        words.append(f"{name} as {short(run.classes[taken])} ({share} of {name})")
    return words
