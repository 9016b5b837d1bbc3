"""Training images per class, and what follows from them: one rule for losses, optimisers, samplers and schedules.

- ``check_class_counts``: every class has at least one training image.
- ``effective_number_weights``, ``power_weights``, ``inverse_frequency_weights``: class weights that sum to C.
- ``class_groups``: head, mid and tail, the classes that are reported together.
- ``tail_classes``: the classes that tail-aware optimisers treat as the tail.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from saddlescape.errors import InputError

ClassCounts = Sequence[int] | Sequence[float] | np.ndarray | Tensor


def check_class_counts(class_counts: ClassCounts) -> Tensor:
    """Number of training images per class -> the same as float64 [C] on the CPU.

    Raises:
        InputError: no list of two or more finite numbers, or a class without images. A margin, a log-prior or an
            inverse frequency of zero images is infinite; the message names the class.
    """
    try:
        counts = torch.as_tensor(class_counts, dtype=torch.float64).detach().cpu().clone()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"class_counts must be a list of numbers, one per class, got {class_counts!r}") from error
    if counts.ndim != 1 or len(counts) < 2:
        raise InputError(f"class_counts must list two or more classes, one number each, got shape {list(counts.shape)}")
    wrong = ~torch.isfinite(counts) | (counts < 0)
    if wrong.any():
        label = int(wrong.nonzero()[0])
        raise InputError(f"class_counts[{label}] is {counts[label].item():g}: a count is a finite number of images")
    empty = [int(label) for label in (counts == 0).nonzero().flatten()]
    if empty and counts.max() + 1 < len(counts) and bool((counts == counts.round()).all()):
        raise InputError(
            f"these {len(counts)} numbers look like labels; pass class counts, one number per class: "
            "torch.bincount(labels)"
        )
    if empty:
        raise InputError(empty_class_message(empty))
    return counts


def empty_class_message(empty: list[int]) -> str:
    """One line that names the classes without training images."""
    if len(empty) == 1:
        subject = f"class {empty[0]} has"
    else:
        subject = f"classes {', '.join(map(str, empty[:5]))}{' and more' if len(empty) > 5 else ''} have"
    return f"{subject} no training images; give every class at least one image or leave the class out of the data set"


def effective_number_weights(
    class_counts: ClassCounts, beta: float = 0.9999, *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019: w_c ~ (1-beta)/(1-beta^n_c).

    Args:
        class_counts: training images per class, [C].
        beta: in [0, 1); 0 gives ones exactly, towards 1 the weights become those of inverse frequency.
        dtype: of the result; the computation is in float64.

    Returns:
        [C], on the CPU, summing to C.

    Raises:
        InputError: a class without images, or beta out of range.
    """
    counts = check_class_counts(class_counts)
    if not 0 <= beta < 1:
        raise InputError(f"beta is {beta}; it must be in [0, 1)")
    # 1 / (1 - beta^n); the factor 1 - beta is common to all classes. expm1 keeps its digits for beta close to 1.
    inverse = -1 / torch.expm1(counts * (math.log(beta) if beta > 0 else -math.inf))
    return (inverse * (len(counts) / inverse.sum())).to(dtype)


def power_weights(class_counts: ClassCounts, exponent: float, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """w_c ~ n_c^-exponent, on the CPU, summing to C: [C].

    0 gives ones exactly, 1/2 the inverse root of the frequency, 1 inverse frequency, more favours the tail further.
    DisAlign's generalised re-weighting (Zhang et al., CVPR 2021) is exponent 1.2 on ImageNet-LT; GLMC's label weighting
    (Du et al., CVPR 2023) is 1.0 to 1.2. Computed in float64.

    Raises:
        InputError: a class without images, or an exponent that is not finite.
    """
    if not math.isfinite(exponent):
        raise InputError(f"exponent is {exponent}; it must be a finite number, usually from 0 to 2")
    counts = check_class_counts(class_counts)
    inverse = (counts / counts.min()) ** -float(exponent)  # a ratio: no power of it overflows
    return (inverse * (len(inverse) / inverse.sum())).to(dtype)


def inverse_frequency_weights(
    class_counts: ClassCounts, power: float = 1.0, *, dtype: torch.dtype = torch.float32
) -> Tensor:
    """w_c ~ n_c^-power, on the CPU, summing to C: [C]. ``power_weights`` under the name of its usual case, 1.

    Raises:
        InputError: a class without images.
    """
    return power_weights(class_counts, power, dtype=dtype)


GroupRule = str | tuple[int, int]

# Head, mid and tail. CIFAR by class index whatever the imbalance, ImageNet-LT and iNaturalist 2018 by rank of frequency
# (the paper's official code; MiSLAS, Zhong et al., CVPR 2021).
# (end of head, end of mid, number of classes), half-open. Labels of ImageNet-LT and iNat18 are sorted by frequency.
PAPER_RANGES = {
    "cifar10": (3, 7, 10),
    "cifar100": (36, 71, 100),
    "imagenet-lt": (390, 835, 1000),
    "inat2018": (842, 4543, 8142),
}
MANY, FEW = 100, 20  # the many / medium / few cut of Liu et al., CVPR 2019
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


def tail_classes(counts: Tensor, threshold: float | None, name: str, usual: float = FEW) -> Tensor:
    """Mask [C], True for the classes with fewer training images than the threshold.

    Without a threshold: the classes with fewer than ``usual`` images, where these are some of the classes and not all
    of them; else the smallest third of the classes (rounded down, at least one), together with all that are exactly
    as small as the largest of these. ``usual`` is 20, below which long-tailed work calls a class few-shot and which
    ImbSAM's authors use on CIFAR-100-LT. CIFAR-10-LT at imbalance 100 has no class that small, so there the tail is
    the last three classes.

    Raises InputError: a threshold under which no class lies, or classes that are all equally large.
    """
    if threshold is None:
        mask = counts < usual
        if bool(mask.any()) and not bool(mask.all()):
            return mask
        third = max(1, len(counts) // 3)
        mask = counts <= torch.sort(counts).values[third - 1]
        if bool(mask.all()):
            raise InputError(f"{name}: all classes are equally large, none is tail; give threshold= or use plain SAM")
        return mask
    mask = counts < threshold
    if not bool(mask.any()):
        raise InputError(
            f"{name}: no class has fewer than threshold={threshold:g} images, the smallest has {counts.min():g}; "
            "raise the threshold"
        )
    return mask
