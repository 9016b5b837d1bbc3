"""The order of classes by frequency: against the reference's own lines, and ties against NumPy's scalar quicksort."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from saddlescape.data.sources.frequency import frequency_order, scalar_quicksort
from saddlescape.errors import InputError


def test_most_frequent_first_and_ties_in_label_order() -> None:
    assert frequency_order([5, 9, 5, 1, 9]).tolist() == [1, 4, 0, 2, 3]
    counts = np.random.default_rng(0).integers(1, 40, 1000)
    order = frequency_order(counts.tolist())
    assert sorted(order.tolist()) == list(range(1000))
    steps = np.diff(counts[order])
    assert (steps <= 0).all() and (np.diff(order)[steps == 0] > 0).all()


@pytest.mark.parametrize("most", [2, 20, 1280])
def test_reference_ties_are_those_of_numpy_s_scalar_quicksort(most: int) -> None:
    # NumPy sorts int64 by vector instructions where the processor has them, but int16 (argsort) by the scalar code
    # that every version before 1.25 used for all types.
    rng = np.random.default_rng(most)
    differ = 0
    for classes in [*range(1, 40), 100, 365, 1000, 8142]:
        counts = rng.integers(1, most + 1, classes)
        want = np.argsort((-counts).astype(np.int16))
        got = frequency_order(counts.tolist(), "reference")
        assert np.array_equal(got, want), classes
        differ += not np.array_equal(got, frequency_order(counts.tolist()))
    assert differ > 0, "ties were never treated differently: the test would not see the difference"


def test_a_class_whose_count_is_its_own_is_where_both_orders_put_it() -> None:
    counts = np.random.default_rng(1).permutation(np.repeat(np.arange(1, 400), 2)[:700])
    both = [frequency_order(counts.tolist(), ties) for ties in ("stable", "reference")]
    assert np.array_equal(counts[both[0]], counts[both[1]])


def test_other_words_and_hostile_counts_are_refused() -> None:
    with pytest.raises(InputError, match="unknown order of ties 'random': choose one of stable, reference"):
        frequency_order([1, 2], "random")
    # McIlroy's adversary: values fixed as the sort asks for them, so that every pivot is among the smallest left.
    hostile = adversary(2000)
    assert sorted(hostile) == list(range(2000))
    with pytest.raises(InputError, match="fallback"):
        scalar_quicksort(hostile)


class Gas:
    """A value that is decided only when two undecided ones are compared."""

    solid = 0
    candidate: Gas | None = None

    def __init__(self) -> None:
        self.value: int | None = None

    def __lt__(self, other: Gas) -> bool:
        if self.value is None and other.value is None:
            frozen = self if self is Gas.candidate else other
            frozen.value, Gas.solid = Gas.solid, Gas.solid + 1
        if self.value is None:
            Gas.candidate = self
        elif other.value is None:
            Gas.candidate = other
        mine = float("inf") if self.value is None else self.value
        return mine < (float("inf") if other.value is None else other.value)


def adversary(size: int) -> list[int]:
    Gas.solid, Gas.candidate = 0, None
    values = [Gas() for _ in range(size)]
    with contextlib.suppress(InputError):  # it is meant to be driven to its limit
        scalar_quicksort(values)  # type: ignore[arg-type]
    for value in values:
        if value.value is None:
            value.value, Gas.solid = Gas.solid, Gas.solid + 1
    return [int(value.value) for value in values]  # type: ignore[arg-type]
