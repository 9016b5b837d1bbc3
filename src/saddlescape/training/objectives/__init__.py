"""Objectives by name: an objective is one file in this folder and one line here."""

from __future__ import annotations

from collections.abc import Callable

from saddlescape.training.objective import Classify, Objective
from saddlescape.training.objectives.adversarial_features import AdversarialFeatures
from saddlescape.training.objectives.contrastive import Contrastive
from saddlescape.training.objectives.dro_lt import DROLT
from saddlescape.training.objectives.glmc import GLMC
from saddlescape.training.objectives.mixup import Mixup

OBJECTIVES: dict[str, Callable[..., Objective]] = {
    "classify": Classify,
    "mixup": Mixup,
    "glmc": GLMC,
    "dro-lt": DROLT,
    "adversarial-features": AdversarialFeatures,
    "contrastive": Contrastive,
}

__all__ = ["OBJECTIVES"]
