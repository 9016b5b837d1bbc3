"""Digits without its test images: where settings are chosen, so that the test images have no say in them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from saddlescape.data.sources import registry
from saddlescape.data.sources.digits import load_digits
from saddlescape.data.sources.found import Found, Request

TRAIN_PER_CLASS = 80  # of 120; the other 40 take the place of the test images
IMBALANCE = 30  # so that the smallest of its classes has two images, as in digits at 50


def load_development(request: Request) -> Found:
    """The 1,200 training images of digits, split again by a fixed draw: 80 of a class to draw from, 40 to choose by."""
    found, generator = load_digits(request), np.random.default_rng(1)
    orders = [generator.permutation(np.flatnonzero(found.train.labels == digit)) for digit in range(10)]
    train, test = (
        np.concatenate([np.sort(order[part]) for order in orders])
        for part in (slice(TRAIN_PER_CLASS), slice(TRAIN_PER_CLASS, None))
    )
    note = (
        f"development: {len(train)} training images of digits to draw from, {len(test)} in the place of its test images"
    )
    return replace(found, train=found.train.take(train), test=found.train.take(test), notes=[note])


def draw(seed: int) -> list[str]:
    """Options of ``saddlescape train``: the long tail of this seed."""
    return ["--imbalance", str(IMBALANCE), "--draw-seed", str(seed)]


def take_the_place_of_digits() -> None:
    """From here on in this process ``digits`` is its development split."""
    registry.SOURCES["digits"] = (load_development, registry.SOURCES["digits"][1])
