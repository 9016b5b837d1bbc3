"""Head, mid and tail: as told, or as the recorded accuracies imply; never guessed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from saddlescape.counts import class_groups
from saddlescape.report.groups import recovered, valid


def scored(counts: list[int], groups: dict[str, list[int]], seed: int, flat: bool = False) -> dict[str, Any]:
    values = np.full(len(counts), 50.0) if flat else np.random.default_rng(seed).uniform(0, 100, len(counts))
    means = {name: float(values[members].mean()) if members else None for name, members in groups.items()}
    return {"per_class": values.tolist(), **means}


@pytest.mark.parametrize("counts", [[5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50], [40, 7, 300, 150, 12, 60, 3]])
def test_the_groups_of_the_data_room_are_found_again(counts: list[int]) -> None:
    name = "cifar10" if len(counts) == 10 else None
    groups, _ = class_groups(counts, name=name)
    found = recovered(counts, [scored(counts, groups, seed) for seed in range(3)])
    assert found == groups


def test_a_thousand_classes() -> None:
    counts = [int(1280 * 0.004 ** (i / 999)) for i in range(1000)]
    groups, _ = class_groups(counts)
    assert recovered(counts, [scored(counts, groups, seed) for seed in range(2)]) == groups


def test_nothing_is_guessed() -> None:
    counts = [100, 50, 20, 10, 5, 2]
    groups = {"head": [0, 1], "mid": [2, 3], "tail": [4, 5]}
    assert recovered(counts, []) is None
    assert recovered(counts, [scored(counts, groups, 0, flat=True)]) is None  # every k fits
    odd = scored(counts, groups, 0) | {"head": 101.0}
    assert recovered(counts, [odd]) is None  # none fits
    assert recovered(counts, [scored(counts, groups, 0, flat=True), scored(counts, groups, 1)]) == groups


def test_groups_in_a_file_are_checked() -> None:
    good = {"head": [0], "mid": [1], "tail": [2]}
    assert valid(good, 3) == good
    assert valid({"head": [0], "tail": [2]}, 3) == {"head": [0], "mid": [], "tail": [2]}
    for bad in (
        None,
        [],
        {},
        {"head": [0, 0]},
        {"head": [3]},
        {"head": [-1]},
        {"all": [0]},
        {"head": ["0"]},
        {"head": 0},
        {"head": [True]},
    ):
        assert valid(bad, 3) is None
