"""DisAlign: adaptive calibration of a frozen network's logits (Zhang et al., CVPR 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from saddlescape.methods.recipe import Facts, Recipe
from saddlescape.methods.systems.system import System, classifier_stage
from saddlescape.records.config import Stage


def _stages(facts: Facts, own: Mapping[str, Any], first: Recipe) -> tuple[Stage, ...]:
    before = first.stages[0]
    second = classifier_stage(before, own, reweight="power", power=float(own["power"]))
    return before, replace(second, head=str(own["head"]), trainable="head.alpha,head.beta,head.confidence")


DISALIGN = System(
    "disalign",
    "magnitude, margin and confidence of each class's logit, under generalised re-weighting",
    "Zhang et al., CVPR 2021",
    _stages,
    any_sum=True,
)
