"""Head, mid and tail: which classes are reported together.

The paper's ranges (its official code and MiSLAS, Zhong et al., CVPR 2021): CIFAR by class index whatever the imbalance,
ImageNet-LT and iNaturalist 2018 by rank of frequency. For any other data the common "many / medium / few" cut of Liu et
al. (CVPR 2019) is used where it is of use, and thirds of the classes where it is not.
"""

from __future__ import annotations

from collections.abc import Sequence

from saddlescape.errors import InputError

GroupRule = str | tuple[int, int]

# (end of head, end of mid, number of classes), half-open. Labels of ImageNet-LT and iNat18 are sorted by frequency.
PAPER_RANGES = {
    "cifar10": (3, 7, 10),
    "cifar100": (36, 71, 100),
    "imagenet-lt": (390, 835, 1000),
    "inat2018": (842, 4543, 8142),
}
MANY, FEW = 100, 20
RULES = ("auto", "paper", "thresholds", "thirds")


def class_groups(
    class_counts: Sequence[int], *, name: str | None = None, rule: GroupRule = "auto"
) -> tuple[dict[str, list[int]], str]:
    """``{"head": [...], "mid": [...], "tail": [...]}`` (class labels, ascending) and one line that states the rule.

    ``rule``:

    - ``"paper"``: the ranges above, for the data sets named there.
    - ``"thresholds"``: head has more than 100 training images, tail fewer than 20, mid the rest. A pair
      ``(many, few)`` sets the two numbers. A group may be empty; its accuracy is then "n/a".
    - ``"thirds"``: classes sorted by count (ties: label order); the largest third (rounded down, at least one class)
      is the head, the smallest third the tail, the rest mid.
    - ``"auto"``: ``"paper"`` where it applies, else ``"thresholds"`` if no group is empty, else ``"thirds"``.

    Raises ``InputError`` for an unknown rule, a rule that does not apply, or thresholds out of order.
    """
    if isinstance(rule, str):
        if rule not in RULES:
            raise InputError(f"unknown group rule {rule!r}: choose one of {', '.join(RULES)}, or a pair (many, few)")
        if rule == "paper" and not _paper_applies(name, class_counts):
            raise InputError(
                f"group rule 'paper' is known for {', '.join(PAPER_RANGES)} only, not for {name!r} with "
                f"{len(class_counts)} classes: choose 'thresholds' or 'thirds'"
            )
        if rule == "paper" or (rule == "auto" and _paper_applies(name, class_counts)):
            return _by_range(str(name))
        if rule == "thirds":
            return _thirds(class_counts)
        groups, line = _thresholds(class_counts, MANY, FEW)
        if rule == "thresholds" or all(groups.values()):
            return groups, line
        return _thirds(class_counts)
    many, few = rule
    if few < 0 or few > many + 1:
        raise InputError(f"group thresholds (many={many}, few={few}): few must lie between 0 and many + 1")
    return _thresholds(class_counts, many, few)


def _paper_applies(name: str | None, class_counts: Sequence[int]) -> bool:
    return name in PAPER_RANGES and PAPER_RANGES[name][2] == len(class_counts)


def _by_range(name: str) -> tuple[dict[str, list[int]], str]:
    head, mid, end = PAPER_RANGES[name]
    groups = {"head": list(range(head)), "mid": list(range(head, mid)), "tail": list(range(mid, end))}
    return groups, f"groups: the paper's for {name}: classes [0, {head}), [{head}, {mid}), [{mid}, {end})"


def _thresholds(class_counts: Sequence[int], many: int, few: int) -> tuple[dict[str, list[int]], str]:
    groups: dict[str, list[int]] = {"head": [], "mid": [], "tail": []}
    for label, count in enumerate(class_counts):
        groups["head" if count > many else "tail" if count < few else "mid"].append(label)
    return groups, f"groups: head has more than {many} training images, tail fewer than {few}, mid the rest"


def _thirds(class_counts: Sequence[int]) -> tuple[dict[str, list[int]], str]:
    ranked = sorted(range(len(class_counts)), key=lambda label: (-class_counts[label], label))
    third = max(1, len(ranked) // 3)
    if len(ranked) < 2:
        groups = {"head": ranked, "mid": [], "tail": []}
    else:
        groups = {
            "head": sorted(ranked[:third]),
            "mid": sorted(ranked[third:-third]),
            "tail": sorted(ranked[-third:]),
        }
    return groups, f"groups: thirds of the classes by training images ({third} largest head, {third} smallest tail)"
