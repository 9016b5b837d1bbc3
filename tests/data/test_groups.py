"""Head, mid and tail by the paper's ranges, by thresholds and by thirds."""

from __future__ import annotations

import pytest

from saddlescape.data import class_counts, class_groups
from saddlescape.errors import InputError


def sizes(groups: dict[str, list[int]]) -> tuple[int, int, int]:
    return len(groups["head"]), len(groups["mid"]), len(groups["tail"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cifar10", (3, 4, 3)),
        ("cifar100", (36, 35, 29)),
        ("imagenet-lt", (390, 445, 165)),
        ("inat2018", (842, 3701, 3599)),
    ],
)
def test_paper_ranges(name: str, expected: tuple[int, int, int]) -> None:
    groups, _ = class_groups([1] * sum(expected), name=name)
    assert sizes(groups) == expected
    assert groups["head"] + groups["mid"] + groups["tail"] == list(range(sum(expected)))


def test_paper_cut_of_cifar100_in_counts() -> None:
    counts = class_counts(100, 500, 100)
    groups, _ = class_groups(counts, name="cifar100")
    assert min(counts[c] for c in groups["head"]) == 98
    assert (max(counts[c] for c in groups["mid"]), min(counts[c] for c in groups["mid"])) == (93, 19)
    assert max(counts[c] for c in groups["tail"]) == 18


def test_many_medium_few_has_the_known_sizes() -> None:
    assert sizes(class_groups(class_counts(100, 500, 100), rule="thresholds")[0]) == (35, 35, 30)
    # 20 and 100 themselves are medium; few has an empty group here and says so instead of failing (K53).
    groups, line = class_groups([101, 100, 20, 300], rule="thresholds")
    assert groups == {"head": [0, 3], "mid": [1, 2], "tail": []}
    assert "more than 100" in line and "fewer than 20" in line


def test_thresholds_can_be_set() -> None:
    # Focal-SAM on CIFAR-10 IF 100: few < 200, many > 1000.
    assert sizes(class_groups(class_counts(10, 5000, 100), rule=(1000, 200))[0]) == (4, 3, 3)


def test_own_data_fall_back_to_thirds() -> None:
    groups, line = class_groups([5, 50, 7, 40, 6, 6, 30])
    assert groups == {"head": [1, 3], "mid": [2, 4, 6], "tail": [0, 5]}
    assert "thirds" in line
    assert sizes(class_groups([9, 3])[0]) == (1, 0, 1)
    assert sizes(class_groups([9])[0]) == (1, 0, 0)


def test_own_data_use_thresholds_where_they_cut() -> None:
    groups, line = class_groups([500, 50, 5])
    assert groups == {"head": [0], "mid": [1], "tail": [2]}
    assert "100" in line


@pytest.mark.parametrize("rule", ["paper", "quarters", (10, 50)])
def test_bad_rules(rule) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError):
        class_groups([5, 4, 3], name="mine", rule=rule)
