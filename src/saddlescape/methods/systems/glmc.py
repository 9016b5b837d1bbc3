"""GLMC: a global and a local mixture that agree, from plain to balanced labels (Du et al., CVPR 2023).

Deviations from the published code: 1. CIFAR-10 is normalised with the standard deviations of every other row, there
with (0.247, 0.243, 0.262); 2. the large sets have a cosine without its ten epochs of warm-up and SimCLR's augmentation
in place of its blur; 3. those of the objective (``saddlescape.training.objectives.glmc``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from saddlescape.methods.recipe import Facts, Recipe
from saddlescape.methods.systems.system import System
from saddlescape.records.config import Options, Stage


def _stages(facts: Facts, own: Mapping[str, Any], first: Recipe) -> tuple[Stage, ...]:
    stage = first.stages[0]
    options: Options = {name: float(own[name]) for name in ("consistency", "label_power")}
    return (
        replace(
            stage,
            objective="glmc",
            objective_options=options,
            head="glmc",
            views=(stage.augment,),
            partner="power",
            partner_options={"q": 1 - float(own["resample"])},  # images weighted by n^-r: classes drawn as n^(1-r)
        ),
    )


GLMC = System(
    "glmc",
    "mixup and CutMix of a plain and a re-sampled batch, consistent with each other; two classifiers",
    "Du et al., CVPR 2023",
    _stages,
)
