"""BCL and ProCo: logit-adjusted cross-entropy beside a contrastive loss on two further views of each image.

Deviations from the published codes: 1. ProCo's drops the last, smaller batch of an epoch (BCL's does not); 2. ProCo's
400-epoch schedule drops at 360 and 380, here every schedule is the 200-epoch one, stretched; 3. on the large sets both
have a cosine of (epoch + 1) / (epochs + 1), here it is of epoch / epochs as in every other row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from saddlescape.methods.recipe import Facts, Recipe
from saddlescape.methods.systems.system import Build, System
from saddlescape.records.config import Stage


def _with(kind: str, head: str) -> Build:
    def stages(facts: Facts, own: Mapping[str, Any], first: Recipe) -> tuple[Stage, ...]:
        stage = first.stages[0]
        names = ("weight", "classify_weight", "temperature")
        return (
            replace(
                stage,
                loss="la",
                objective="contrastive",
                objective_options={"kind": kind, **{name: float(own[name]) for name in names}},
                head=head,
                views=(str(own.get("view", stage.augment)),) * 2,
            ),
        )

    return stages


BCL = System(
    "bcl",
    "logit-adjusted cross-entropy + balanced contrastive loss with class prototypes",
    "Zhu et al., CVPR 2022",
    _with("bcl", "bcl"),
)
PROCO = System(
    "proco",
    "logit-adjusted cross-entropy + probabilistic contrastive loss",
    "Du et al., TPAMI 2024",
    _with("proco", "contrastive"),
)
