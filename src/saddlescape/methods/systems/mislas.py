"""MiSLAS: mixup, then label-aware smoothing of a re-scaled classifier (Zhong et al., CVPR 2021)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from saddlescape.methods.recipe import Facts, Recipe
from saddlescape.methods.systems.system import System, classifier_stage
from saddlescape.records.config import Stage


def _stages(facts: Facts, own: Mapping[str, Any], first: Recipe) -> tuple[Stage, ...]:
    before = replace(first.stages[0], objective="mixup", objective_options={"alpha": float(own["alpha"])})
    second = classifier_stage(
        before,
        own,
        sampler="class-aware",
        sampler_options={"k": float(own["k"])},
        loss="las",
        loss_options={
            "smooth_head": float(own["smooth_head"]),
            "smooth_tail": float(own["smooth_tail"]),
            "shape": str(own["shape"]),
        },
        lr_factors={"head.linear": float(own["lr_factor"])},
    )
    return before, replace(second, head="lws")


MISLAS = System(
    "mislas",
    "mixup; then label-aware smoothing, learnable class scales and (where published) shifted BatchNorm",
    "Zhong et al., CVPR 2021",
    _stages,
)
