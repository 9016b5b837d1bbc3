"""LWS: keep the classifier and learn one scale per class on balanced classes (Kang et al., ICLR 2020, section 4.4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from saddlescape.methods.recipe import Facts, Recipe
from saddlescape.methods.systems.system import System, classifier_stage
from saddlescape.records.config import Stage


def _stages(facts: Facts, own: Mapping[str, Any], first: Recipe) -> tuple[Stage, ...]:
    before = first.stages[0]
    second = classifier_stage(before, own, sampler="class-aware", sampler_options={"k": float(own["k"])})
    return before, replace(second, head="lws", trainable="head.scale")


LWS = System(
    "lws",
    "learnable scale of each class's logit, on class-aware batches; other weights frozen, BatchNorm statistics not",
    "Kang et al., ICLR 2020",
    _stages,
    any_sum=True,
)
