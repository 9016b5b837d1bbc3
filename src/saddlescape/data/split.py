"""Stratified choice: a share of every class, never the last image of one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saddlescape.errors import InputError


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
