"""cRT: re-train a fresh classifier on balanced classes (Kang et al., ICLR 2020, section 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from saddlescape.methods.recipe import Facts, Recipe
from saddlescape.methods.systems.system import System, classifier_stage
from saddlescape.records.config import Stage


def _stages(facts: Facts, own: Mapping[str, Any], first: Recipe) -> tuple[Stage, ...]:
    before = first.stages[0]
    # A linear one, also after a cosine head: plain cross-entropy cannot learn from cosines alone.
    second = classifier_stage(
        before, own, sampler="class-aware", sampler_options={"k": float(own["k"])}, reset_head=True
    )
    return before, replace(second, head="linear")


CRT = System(
    "crt",
    "a fresh classifier on class-aware batches; the backbone's weights are frozen, its BatchNorm statistics move",
    "Kang et al., ICLR 2020",
    _stages,
    any_sum=True,
)
