"""Which classes are the tail: the rule that ImbSAM, SSE-SAM and PartialSAM share."""

from __future__ import annotations

import torch
from torch import Tensor

from saddlescape.errors import InputError

FEW_SHOT = 20


def tail_classes(counts: Tensor, threshold: float | None, name: str, usual: float = FEW_SHOT) -> Tensor:
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
