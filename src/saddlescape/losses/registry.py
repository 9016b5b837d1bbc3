"""Losses by their short names."""

from __future__ import annotations

import inspect
from typing import Any

from saddlescape.counts import ClassCounts, check_class_counts
from saddlescape.errors import InputError, near
from saddlescape.losses.balanced_softmax import BalancedSoftmaxLoss
from saddlescape.losses.base import ClassLoss
from saddlescape.losses.cross_entropy import CrossEntropyLoss
from saddlescape.losses.focal import FocalLoss
from saddlescape.losses.influence_balanced import InfluenceBalancedLoss
from saddlescape.losses.label_aware_smoothing import LabelAwareSmoothingLoss
from saddlescape.losses.ldam import LDAMLoss
from saddlescape.losses.logit_adjustment import LogitAdjustedLoss
from saddlescape.losses.vs import VSLoss

LOSSES: dict[str, type[ClassLoss]] = {
    "ce": CrossEntropyLoss,
    "ldam": LDAMLoss,
    "vs": VSLoss,
    "la": LogitAdjustedLoss,
    "bs": BalancedSoftmaxLoss,
    "focal": FocalLoss,
    "ib": InfluenceBalancedLoss,
    "las": LabelAwareSmoothingLoss,
}


def normalization_of(name: str) -> str:
    """What a weighted mean of this loss is divided by in its official code: "weights" or "samples"; "" if unknown."""
    return str(inspect.signature(LOSSES[name]).parameters["normalization"].default) if name in LOSSES else ""


def build_loss(name: str, class_counts: ClassCounts, **options: Any) -> ClassLoss:
    """Build the loss called ``name`` for classes with these numbers of training images [C].

    ``options`` are the keyword arguments of the loss's class (``LOSSES[name]``).

    Raises:
        InputError: an unknown name (with near matches), an unknown or missing option, or a class without images.
    """
    counts = check_class_counts(class_counts)
    if name not in LOSSES:
        raise InputError(f"unknown loss {name!r}; {near(name, LOSSES)}")
    cls = LOSSES[name]
    parameters = inspect.signature(cls).parameters
    given = {"class_counts": counts} if "class_counts" in parameters else {"num_classes": len(counts)}
    allowed = [option for option in parameters if option not in given]
    for option in options:
        if option not in allowed:
            raise InputError(f"loss {name!r} has no option {option!r}; it has {', '.join(allowed)}")
    missing = [key for key in allowed if parameters[key].default is inspect.Parameter.empty and key not in options]
    if missing:
        raise InputError(f"loss {name!r} needs {' and '.join(missing)}")
    return cls(**given, **options)
