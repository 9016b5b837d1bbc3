"""Tau-normalisation: divide each class vector by its norm to the power tau (Kang et al., ICLR 2020, section 4.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saddlescape.methods.recipe import Facts, Recipe
from saddlescape.methods.systems.system import System
from saddlescape.records.config import Stage


def _stages(facts: Facts, own: Mapping[str, Any], first: Recipe) -> tuple[Stage, ...]:
    before = first.stages[0]
    return before, Stage(
        name="classifier", epochs=1, batch_size=before.batch_size, head="tau-norm", head_fit="tau-norm",
        trainable="none", augment=before.augment, backbone_mode="eval",
    )  # fmt: skip


TAU_NORM = System(
    "tau-norm",
    "class vectors divided by their norm to the power tau, chosen on the validation split (1 without one)",
    "Kang et al., ICLR 2020",
    _stages,
    any_sum=True,
)
