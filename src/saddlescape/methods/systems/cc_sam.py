"""CC-SAM: class-conditional SAM on the classifier with mixup, then adversarial features (Zhou et al., CVPR 2023).

Deviations from the published code: 1. the second stage goes on from the last epoch of the first, there from the one
best on the test set; 2. the perturbed term of the first stage has mixup's labels like the plain one, there the unmixed
ones, and an image counts to the class with the larger share; 3. the rate is that of MiSLAS, 1/5 of its value in the
first epoch and dropped from epochs 160 and 180 (from 0), there 0.467 of it in the first and dropped from 159 and 179;
4. the first stage trains on the last, smaller batch of an epoch too, there it is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from saddlescape.errors import InputError
from saddlescape.methods.recipe import Facts, Recipe
from saddlescape.methods.systems.system import System, classifier_stage
from saddlescape.records.config import Stage


def _stages(facts: Facts, own: Mapping[str, Any], first: Recipe) -> tuple[Stage, ...]:
    stage = first.stages[0]
    if stage.optimizer != "sgd":
        raise InputError(f"cc-sam brings its own optimiser: leave {stage.optimizer} out")
    before = replace(
        stage,
        objective="mixup",
        objective_options={"alpha": float(own["alpha"])},
        optimizer="cc-sam",
        optimizer_options={"phi": float(own["phi"])},
        rho=(float(own["kappa"]),),
    )
    second = classifier_stage(
        before,
        own,
        sampler="class-aware",
        sampler_options={"k": float(own["k"])},
        objective="adversarial-features",
        objective_options={"cap": float(own["cap"])},
    )
    return before, second


CC_SAM = System(
    "cc-sam",
    "mixup, the classifier perturbed by class; then adversarial features; backbone weights frozen, statistics not",
    "Zhou et al., CVPR 2023",
    _stages,
)
