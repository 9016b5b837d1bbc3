"""Which classes are head, mid and tail, from what a run has on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

GROUPS = ("head", "mid", "tail")
Groups = dict[str, list[int]]


def valid(groups: Any, classes: int) -> Groups | None:
    """``groups`` as read from a file, if it names each class at most once and no other."""
    if not isinstance(groups, Mapping) or not set(groups) <= set(GROUPS):
        return None
    members = [groups.get(name, []) for name in GROUPS]
    if not all(isinstance(group, list) and all(type(label) is int for label in group) for group in members):
        return None
    flat = [label for group in members for label in group]
    if not flat or len(set(flat)) != len(flat) or not all(0 <= label < classes for label in flat):
        return None
    return dict(zip(GROUPS, members, strict=True))


def recovered(counts: Sequence[int], scores: Sequence[Mapping[str, Any]]) -> Groups | None:
    """The groups that the recorded accuracies imply: the k largest classes whose mean is the head's, at every epoch.

    Files of older runs do not name the groups, but hold ``per_class``, ``head`` and ``tail``. ``scores``: those of the
    evaluated epochs. None where no k or more than one fits: nothing is guessed.
    """
    order = sorted(range(len(counts)), key=lambda label: (-counts[label], label))
    head = _fitting(order, scores, "head")
    tail = _fitting(order[::-1], scores, "tail")
    if head is None or tail is None or head + tail > len(order):
        return None
    return {
        "head": sorted(order[:head]),
        "mid": sorted(order[head : len(order) - tail]),
        "tail": sorted(order[len(order) - tail :]),
    }


def _fitting(order: Sequence[int], scores: Sequence[Mapping[str, Any]], name: str) -> int | None:
    possible = np.ones(len(order) + 1, bool)
    possible[0] = False
    seen = False
    for row in scores:
        wanted, per_class = row.get(name), row.get("per_class")
        if wanted is None or not isinstance(per_class, list) or len(per_class) != len(order):
            continue
        values = np.array([np.nan if per_class[label] is None else per_class[label] for label in order], float)
        present = np.cumsum(~np.isnan(values))
        with np.errstate(invalid="ignore", divide="ignore"):
            means = np.concatenate([[np.nan], np.nancumsum(values) / present])
        possible &= np.abs(means - wanted) < 1e-6
        seen = True
    fits = np.flatnonzero(possible)
    return int(fits[0]) if seen and len(fits) == 1 else None
