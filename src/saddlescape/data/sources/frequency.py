"""Classes from the most frequent to the rarest, and what becomes of ties."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from saddlescape.errors import InputError

TIES = ("stable", "reference")
_SMALL = 15  # NumPy's own constant: parts of up to 16 elements are sorted by insertion


def frequency_order(counts: Sequence[int], ties: str = "stable") -> NDArray[np.int64]:
    """Original labels, most frequent first, int64 [C]: entry k is the original label of class k.

    ``ties``: ``"stable"`` keeps classes of equal count in the order of their original labels, on every machine.
    ``"reference"`` is ``numpy.argsort(-counts)`` as the reference implementation calls it, by the scalar quicksort
    that NumPy had before 1.25 (newer ones sort ties differently from processor to processor). Which of two equally
    frequent classes comes first matters where a border between head, mid and tail runs through a tie.
    """
    if ties not in TIES:
        raise InputError(f"unknown order of ties {ties!r}: choose one of {', '.join(TIES)}")
    values = -np.asarray(counts, dtype=np.int64)
    if ties == "stable":
        return np.argsort(values, kind="stable").astype(np.int64)
    return np.array(scalar_quicksort(values.tolist()), dtype=np.int64)


def scalar_quicksort(values: Sequence[int]) -> list[int]:
    """Positions that sort ``values``, ties as NumPy's scalar quicksort leaves them.

    The algorithm: median of first, middle and last as the pivot; scans from both ends that stop at equals; the larger
    part waits on a stack; parts of up to 16 elements are finished by insertion. NumPy goes over to heapsort after
    twice the logarithm of the length in nested partitions; values that drive it there are refused.
    """
    order = list(range(len(values)))
    limit = 2 * max(len(values), 1).bit_length() - 2
    waiting = [(0, len(values) - 1, limit)]
    while waiting:
        left, right, depth = waiting.pop()
        if depth < 0:
            raise InputError("these counts drive NumPy's quicksort into its fallback: use the stable order of ties")
        while right - left > _SMALL:
            pivot_at = _partition(values, order, left, right)
            depth -= 1
            if pivot_at - left < right - pivot_at:
                waiting.append((pivot_at + 1, right, depth))
                right = pivot_at - 1
            else:
                waiting.append((left, pivot_at - 1, depth))
                left = pivot_at + 1
        for i in range(left + 1, right + 1):
            moved, at = order[i], i
            while at > left and values[moved] < values[order[at - 1]]:
                order[at] = order[at - 1]
                at -= 1
            order[at] = moved
    return order


def _partition(values: Sequence[int], order: list[int], left: int, right: int) -> int:
    """Smaller ones to the left of the pivot, larger ones to the right; equals may end on either side."""

    def swap(a: int, b: int) -> None:
        order[a], order[b] = order[b], order[a]

    middle = left + (right - left) // 2
    for low, high in ((left, middle), (middle, right), (left, middle)):
        if values[order[high]] < values[order[low]]:
            swap(low, high)
    pivot = values[order[middle]]
    up, down = left, right - 1
    swap(middle, down)
    while True:
        up += 1
        while values[order[up]] < pivot:
            up += 1
        down -= 1
        while pivot < values[order[down]]:
            down -= 1
        if up >= down:
            break
        swap(up, down)
    swap(up, right - 1)
    return up
