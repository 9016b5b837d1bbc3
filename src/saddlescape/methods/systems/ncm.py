"""NCM: the nearest class mean of the features (Kang et al., ICLR 2020, section 4.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saddlescape.methods.recipe import Facts, Recipe
from saddlescape.methods.systems.system import System
from saddlescape.records.config import Stage


def _stages(facts: Facts, own: Mapping[str, Any], first: Recipe) -> tuple[Stage, ...]:
    before = first.stages[0]
    return before, Stage(
        name="classifier", epochs=1, batch_size=before.batch_size, head="ncm", head_fit="ncm",
        head_fit_options={"mode": str(own["mode"])}, trainable="none", augment=before.augment, backbone_mode="eval",
    )  # fmt: skip


NCM = System(
    "ncm",
    "nearest class mean of centred, length-one features",
    "Kang et al., ICLR 2020",
    _stages,
    any_sum=True,
)
