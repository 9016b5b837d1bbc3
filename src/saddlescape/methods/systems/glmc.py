"""GLMC: a global and a local mixture that agree, from plain to balanced labels (Du et al., CVPR 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from saddlescape.methods.recipe import Facts, Recipe
from saddlescape.methods.systems.system import System
from saddlescape.training.stage import Options, Stage


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
