"""The long-tailed draw: class profiles, and which images of each class are kept.

Source: Cao et al., "Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss", NeurIPS 2019; the same
algorithm is used by the reference implementation of the paper (``imbalance_cifar.py``).

Deviations from the reference implementation:

1. The generator is an own ``numpy.random.RandomState(seed)``, not NumPy's global one: same draws, no side effect.
2. ``"step"`` with an odd number of classes: the middle class belongs to the head (the reference loses a class there).
3. An unknown profile is an error; the reference silently returns a balanced one.
4. A class with too few images is an error; the reference silently keeps fewer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saddlescape.data.images import Images
from saddlescape.errors import InputError

PROFILES = ("exp", "step")


def class_counts(num_classes: int, n_max: int, imbalance: float, profile: str = "exp") -> list[int]:
    """How many images each class keeps; class 0 is the largest.

    ``imbalance >= 1`` is head over tail, f its inverse. ``"exp"``: ``int(n_max * f ** (c / (C - 1)))``, truncated, in
    double precision. ``"step"``: ``n_max`` for classes c < C/2, ``int(n_max * f)`` for the others. A count may be 0.

    Returns C integers. Raises ``InputError`` for an unknown profile, ``imbalance`` below 1 or not finite,
    ``num_classes`` or ``n_max`` below 1.
    """
    if profile not in PROFILES:
        raise InputError(f"unknown profile {profile!r}: choose one of {', '.join(PROFILES)}")
    if not (math.isfinite(imbalance) and imbalance >= 1):
        raise InputError(f"imbalance is {imbalance}, but it is head over tail: a finite number of at least 1")
    if num_classes < 1 or n_max < 1:
        raise InputError(f"num_classes ({num_classes}) and n_max ({n_max}) must both be at least 1")
    factor = 1 / imbalance
    if profile == "exp":
        steps = max(num_classes - 1, 1)
        return [int(n_max * factor ** (c / steps)) for c in range(num_classes)]
    return [int(n_max) if c < num_classes / 2 else int(n_max * factor) for c in range(num_classes)]


def longtail_indices(labels: Any, counts: Sequence[int], seed: int = 0) -> NDArray[np.int64]:
    """Positions of the images to keep, classes one after another in label order, shuffled within a class.

    ``labels`` int [N] (array, tensor on the CPU or list); ``counts`` [C]. One legacy ``RandomState(seed)`` shuffles the
    ascending positions of class 0, then of class 1 and so on, and the first ``counts[c]`` are kept.

    Returns int64 [sum(counts)]. Raises ``InputError`` if a label lies outside 0..C-1 or a class has fewer images than
    wanted (the message names the class, wanted and present).
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"seed is {seed}: it must lie between 0 and {2**32 - 1}")
    targets = np.asarray(labels)
    if targets.ndim != 1:
        raise InputError(f"labels have shape {targets.shape}, expected one dimension [N]")
    present = count_labels(targets, len(counts))
    for c, (wanted, there) in enumerate(zip(counts, present, strict=True)):
        if wanted < 0:
            raise InputError(f"counts[{c}] is {wanted}: a class cannot keep fewer than 0 images")
        if wanted > there:
            raise InputError(
                f"class {c} has too few images: {wanted} wanted, {there} present; ask for fewer (a smaller n_max)"
            )
    generator = np.random.RandomState(seed)  # legacy on purpose: the reference's draw
    kept = []
    for c, wanted in enumerate(counts):
        positions = np.where(targets == c)[0].astype(np.int64)
        generator.shuffle(positions)
        kept.append(positions[:wanted])
    return np.concatenate(kept) if kept else np.empty(0, dtype=np.int64)


def count_labels(labels: Any, num_classes: int) -> list[int]:
    """Images per class, [C]. Raises ``InputError`` naming the first label outside 0..C-1 and its position."""
    targets = np.asarray(labels)
    if targets.size and not np.issubdtype(targets.dtype, np.integer):
        raise InputError(f"labels have type {targets.dtype}, expected integers 0..{num_classes - 1}")
    wrong = np.flatnonzero((targets < 0) | (targets >= num_classes)) if targets.size else np.empty(0, dtype=np.int64)
    if wrong.size:
        at = int(wrong[0])
        raise InputError(f"label {int(targets[at])} of image {at} is outside 0..{num_classes - 1}")
    return np.bincount(targets.astype(np.int64), minlength=num_classes).tolist()


def thinned(
    train: Images, classes: list[str], imbalance: float, profile: str, seed: int, n_max: int | None, notes: list[str]
) -> NDArray[np.int64]:
    """The positions that ``load`` draws. Raises ``InputError`` where a class has too few images for the profile."""
    present = count_labels(train.labels, len(classes))
    largest = max(present) if n_max is None else n_max
    wanted = class_counts(len(classes), largest, imbalance, profile)
    if 0 in wanted:
        raise InputError(
            f"imbalance {imbalance:g} leaves class {classes[wanted.index(0)]!r} without images "
            f"(largest class: {largest}): choose a smaller imbalance"
        )
    if seed == 0 and _is_drawn(train.labels.numpy(), wanted):
        notes.append(
            f"long-tailed draw: the first {sum(wanted):,} training images of this copy are the {profile} profile of "
            f"imbalance {imbalance:g} already and are taken as they are"
        )
        return np.arange(sum(wanted))
    for label, (want, there) in enumerate(zip(wanted, present, strict=True)):
        if want > there:
            remedies = ["choose a larger imbalance"] if label else []
            if n_max is not None:
                remedies.append(f"choose n_max at most {_fitting(present, imbalance, profile)}")
            elif not label:
                remedies.append("order the classes by size, as the profile gives the first one most; or no imbalance")
            raise InputError(
                f"class {classes[label]!r} has too few images for imbalance {imbalance:g} ({profile}): {want} wanted, "
                f"{there} present; {' or '.join(remedies)}"
            )
    notes.append(f"long-tailed draw: {profile} profile, imbalance {imbalance:g}, seed {seed}, {sum(wanted):,} images")
    return longtail_indices(train.labels, wanted, seed)


def _is_drawn(labels: NDArray[np.int64], wanted: list[int]) -> bool:
    """Whether the leading images are a ready-made draw: as many of each class as wanted, no more and no fewer.

    Long-tailed sets are passed on in shards, the rarest profile first; drawing from such a copy again would give
    other images than its maker meant. Images sorted by class can begin like this by chance and do not count, unless
    there are no others.
    """
    total = sum(wanted)
    if len(labels) < total or max(wanted) == min(wanted):
        return False
    leading = labels[:total]
    by_class = bool((np.diff(leading) >= 0).all())
    return np.bincount(leading, minlength=len(wanted)).tolist() == wanted and (len(labels) == total or not by_class)


def _fitting(present: list[int], imbalance: float, profile: str) -> int:
    """The largest n_max whose profile the images present can fill (at least 1)."""
    for n_max in range(max(present), 1, -1):
        wanted = class_counts(len(present), n_max, imbalance, profile)
        if all(want <= there for want, there in zip(wanted, present, strict=True)):
            return n_max
    return 1
