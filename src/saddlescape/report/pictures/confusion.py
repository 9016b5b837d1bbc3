"""What is taken for what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from saddlescape.report import calibration
from saddlescape.report.groups import GROUPS
from saddlescape.report.panels import Heatmap, Plate, Value
from saddlescape.report.read import RunData
from saddlescape.report.select import ranked
from saddlescape.report.text import count, label, listed, percent, short

MOST = 40


def confusion(runs: Sequence[RunData]) -> Plate | None:
    """A matrix a run; over ``MOST`` classes, of head, mid and tail."""
    known = [run for run in runs if run.predictions]
    if not known:
        return None
    grouped = len(known[0].classes) > MOST
    variants = [(run.name, _by_group(run) if len(run.classes) > MOST else _by_class(run)) for run in known]
    caption = "Rows are what an image is, columns what it is taken for, in percent of the row; "
    caption += "by group, since there are too many classes to be seen" if grouped else "the most frequent class first"
    return Plate("confusion", "Confusion", caption + ".", [(n, v) for n, v in variants if v], "run")


def shares(matrix: np.ndarray) -> list[list[Value]]:
    """Counts [C, C] -> percent of each row; None for rows without images."""
    totals = matrix.sum(1, keepdims=True)
    return [
        [100 * float(cell) / float(total[0]) if total[0] else None for cell in row]
        for row, total in zip(matrix, totals, strict=True)
    ]


def _by_class(run: RunData) -> Heatmap:
    assert run.predictions is not None
    order = ranked(run)
    matrix = calibration.confusion(run.predictions, len(order))[np.ix_(order, order)]
    return _heatmap(matrix, [run.classes[c] for c in order], most_confused(run))


def _by_group(run: RunData) -> Heatmap | None:
    assert run.predictions is not None
    if run.groups is None:
        return None
    place = np.full(len(run.classes), -1)
    for index, name in enumerate(GROUPS):
        place[run.groups[name]] = index
    labels, answers = place[run.predictions.labels], place[run.predictions.predictions]
    kept = (labels >= 0) & (answers >= 0)
    matrix = np.bincount(labels[kept] * 3 + answers[kept], minlength=9).reshape(3, 3)
    return _heatmap(matrix, list(GROUPS), most_confused(run))


def most_confused(run: RunData, most: int = 3) -> list[str]:
    """ "truck for automobile (12 % of truck)": the pairs of classes that are confused in most images."""
    assert run.predictions is not None
    size = len(run.classes)
    found = run.predictions
    wrong = found.labels != found.predictions
    pairs, counts = np.unique(found.labels[wrong] * size + found.predictions[wrong], return_counts=True)
    totals = np.bincount(found.labels, minlength=size)
    told = []
    for index in np.argsort(-counts, kind="stable")[:most]:
        true, taken = divmod(int(pairs[index]), size)
        share = percent(100 * counts[index] / totals[true], 0)
        told.append(
            f"{short(run.classes[true])} for {short(run.classes[taken])} ({share} of {short(run.classes[true])})"
        )
    return told


def _heatmap(matrix: np.ndarray, names: Sequence[str], confused: list[str]) -> Heatmap:
    words = [
        [f"{label(a)} taken for {label(b)}: {count(int(matrix[i, j]), 'image')}" for j, b in enumerate(names)]
        for i, a in enumerate(names)
    ]
    right = 100 * np.trace(matrix) / max(matrix.sum(), 1)
    text = f"{percent(right)} of the images lie on the diagonal. Confused most often: {listed(confused)}."
    shown = [short(name, 18) for name in names]
    return Heatmap(shares(matrix), shown, shown, "taken for", "is", words, text)
