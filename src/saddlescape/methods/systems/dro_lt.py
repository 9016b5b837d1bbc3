"""DRO-LT: pull features to class centroids robustly, then train the classifier again (Samuel and Chechik, ICCV 2021).

The published code goes on from the representation with the best accuracy on the test set; ours goes on from the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from saddlescape.methods.recipe import Facts, Recipe
from saddlescape.methods.systems.system import System, classifier_stage
from saddlescape.records.config import Options, Stage


def _stages(facts: Facts, own: Mapping[str, Any], first: Recipe) -> tuple[Stage, ...]:
    before = first.stages[0]
    sampler: Options = {"k": float(own["k"])}
    if own["draws"] == "oversampled":  # every class as often as the largest
        sampler["num_samples"] = float(max(facts.class_counts) * len(facts.class_counts))
    last = classifier_stage(before, own, sampler="class-aware", sampler_options=sampler)
    representation = replace(
        last,
        name="representation",
        epochs=int(own["epochs_representation"]),
        objective="dro-lt",
        objective_options={"temperature": float(own["temperature"]), "form": str(own["form"])},
        reweight="power",
        power=-1.0,  # weights n / n_max: they favour the head
        trainable="backbone",
        backbone_mode="train",
        lr=float(own["lr_representation"]),
    )
    return before, representation, last


DRO_LT = System(
    "dro-lt",
    "cross-entropy; features pulled to robust class centroids; the classifier anew on class-aware batches",
    "Samuel and Chechik, ICCV 2021",
    _stages,
)
