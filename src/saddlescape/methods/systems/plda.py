"""PLDA: Gaussian classes of one covariance; means are the less certain the fewer images they have (Ioffe, 2006)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saddlescape.methods.recipe import Facts, Recipe
from saddlescape.methods.systems.system import System
from saddlescape.records.config import Stage


def plda_stage(before: Stage, own: Mapping[str, Any]) -> Stage:
    """The head of the network of ``before``, fitted in closed form."""
    return Stage(
        name="classifier", epochs=1, batch_size=before.batch_size, head="plda", head_fit="plda",
        head_fit_options={"shrinkage": float(own["shrinkage"])}, trainable="none", augment=before.augment,
        backbone_mode="eval",
    )  # fmt: skip


def _stages(facts: Facts, own: Mapping[str, Any], first: Recipe) -> tuple[Stage, ...]:
    before = first.stages[0]
    return before, plda_stage(before, own)


PLDA = System(
    "plda",
    "probabilistic linear discriminant analysis of the features: the tail borrows the head's covariance",
    "Ioffe, ECCV 2006; on long tails, this library",
    _stages,
    any_sum=True,
)
