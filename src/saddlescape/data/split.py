"""What is set aside for testing and validation: a share of every class, never its last image."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saddlescape.data.draw import count_labels
from saddlescape.data.images import draw_hash
from saddlescape.data.paths import relative_names
from saddlescape.data.sources.found import Found
from saddlescape.data.types import Dataset, Images
from saddlescape.errors import InputError, counted

TEST_FRACTION = 0.2


def stratified_split(
    labels: Any, fraction: float, seed: int = 0, names: Sequence[str] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions that stay and positions that are set aside, both ascending, int64.

    Of each class with n >= 2 images ``round(n * fraction)`` are set aside, but at least 1 and at most n - 1; a class
    with one image keeps it. ``labels`` int [N]. With ``names`` [N] these are the images of the class whose names,
    hashed with ``seed``, come first, so an image that is added or deleted moves at most one other. Without names they
    are a draw of positions, and it may move all. Raises ``InputError`` unless 0 < fraction < 1.
    """
    if not 0 < fraction < 1:
        raise InputError(f"the fraction to set aside is {fraction}, but must lie between 0 and 1 (for example 0.2)")
    if seed < 0:
        raise InputError(f"seed is {seed}: it must not be negative")
    targets = np.asarray(labels)
    generator = np.random.default_rng(seed)
    keys = [(hashlib.sha256(os.fsencode(f"{seed}\0{name}")).digest(), name) for name in names or ()]
    aside = np.zeros(len(targets), dtype=bool)
    for label in np.unique(targets):
        positions = np.flatnonzero(targets == label)
        if len(positions) >= 2:
            number = min(max(round(len(positions) * fraction), 1), len(positions) - 1)
            if names is None:
                chosen = generator.permutation(positions)
            else:
                chosen = np.array(sorted(positions.tolist(), key=keys.__getitem__))
            aside[chosen[:number]] = True
    return np.flatnonzero(~aside), np.flatnonzero(aside)


def with_test(found: Found, split: str, notes: list[str]) -> tuple[Images, Images]:
    """Training and test images of ``load``; ``split`` is its rule for sets without a test set."""
    if found.test is not None:
        return found.train, found.test
    if split == "none":
        return found.train.take(np.arange(0)), found.train
    names = None
    if split == "name" and found.base is not None:
        names = relative_names((found.train.name(i) for i in range(len(found.train))), found.base)
    stay, aside = stratified_split(found.train.labels, TEST_FRACTION, names=names)
    if len(aside) == 0:
        raise InputError(
            f"{found.name}: no class has two images, so none can be set aside for testing: add images, or repair the "
            f"labels (there are {len(found.classes)} classes: {', '.join(found.classes[:3])} ...)"
        )
    single = [found.classes[c] for c, n in enumerate(count_labels(found.train.labels, len(found.classes))) if n == 1]
    notes.append(
        f"no test set given: {counted(len(aside), 'image')} set aside (a fifth of each class, at least one; fixed)"
        + (f"; classes with a single image keep it for training: {', '.join(single[:8])}" if single else "")
    )
    return found.train.take(stay), found.train.take(aside)


def left_over(
    labels: Any, kept: NDArray[np.int64], seed: int, notes: list[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Balanced development images beside a long-tailed draw, so that no choice needs the test set.

    As many of each class as the class has of which fewest (but any) are left over; a class of which fewer are left,
    such as the largest, of which none is, gives as many of its own. ``labels`` int [N], ``kept`` positions drawn.

    Returns:
        Positions that stay in training, in their order, and positions set aside; a function of ``seed``.

    Raises:
        InputError: the draw leaves no image.
    """
    targets, generator = np.asarray(labels), np.random.default_rng(seed)
    rest = np.setdiff1d(np.arange(len(targets)), kept)
    if len(rest) == 0:
        raise InputError("--val extra: the long-tailed draw leaves no image of this copy; use a fraction (--val 0.1)")
    left = np.bincount(targets[rest], minlength=int(targets.max()) + 1)
    number = int(left[left > 0].min())
    aside = []
    for label, there in enumerate(left):
        pool = rest if there >= number else kept
        aside.append(generator.permutation(np.sort(pool[targets[pool] == label]))[:number])
    own = counted(int((left < number).sum()), "class", "classes")
    notes.append(
        f"validation: {number} images of each class that the long-tailed draw left over; {own} without such images "
        "gave training images"
    )
    chosen = np.concatenate(aside)
    return kept[~np.isin(kept, chosen)], chosen


def hold_out(dataset: Dataset, fraction: float, seed: int = 0) -> Dataset:
    """The same data set with a share of the training images of each class moved to ``.val``.

    Of n >= 2 images ``round(n * fraction)`` are moved, at least 1 and at most n - 1; a class with one image stays whole
    in training and is listed in the notes. A person's own images are chosen by name, those of named sets by position
    (see ``stratified_split``). Test set, groups and normalisation stay as they are; counts and hashes are those of
    what is left. Raises ``InputError`` if there is a validation split already, if nothing could be moved,
    or unless 0 < fraction < 1.
    """
    if dataset.val is not None:
        raise InputError(f"{dataset.name} has a validation split of its own: leave out --val")
    names = None
    if dataset.base is not None:
        names = relative_names(dataset.train.names or [], dataset.base)
    stay, aside = stratified_split(dataset.train.labels.numpy(), fraction, seed, names)
    if len(aside) == 0:
        raise InputError(f"{dataset.name}: no class has two training images, so none can be held out for validation")
    train, val = dataset.train.take(stay), dataset.train.take(aside)
    single = [name for name, count in zip(dataset.classes, dataset.class_counts, strict=True) if count == 1]
    held = f"validation: {counted(len(aside), 'training image')} held out ({fraction:g} of each class, seed {seed})"
    notes = [*dataset.notes, held]
    if single:
        notes.append(f"too few images to hold one out, all stay in training: {', '.join(single)}")
    return replace(
        dataset,
        train=train,
        val=val,
        class_counts=count_labels(train.labels, dataset.num_classes),
        draw_hash=draw_hash(train),
        held_hash="" if dataset.base is None else draw_hash(dataset.test, val),
        notes=notes,
    )
