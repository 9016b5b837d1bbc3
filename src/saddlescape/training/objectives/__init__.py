"""Objectives by name: an objective is one file in this folder and one line here."""

from __future__ import annotations

from collections.abc import Callable

from saddlescape.training.objective import Classify, Objective
from saddlescape.training.objectives.mixup import Mixup

OBJECTIVES: dict[str, Callable[..., Objective]] = {"classify": Classify, "mixup": Mixup}

__all__ = ["OBJECTIVES"]
