"""Our own recipe: margins, mixup, strong augmentation and class-aware SAM; then PLDA.

First stage: logit-adjusted cross-entropy of mixtures, a cosine schedule, AutoAugment with Cutout where there are 32
pixels to augment, and SAM whose ascent sees a quarter of each batch with every tail image in it: 1.25 steps of SGD a
step. Then the classifier in closed form: probabilistic linear discriminant analysis, in which the tail borrows the
covariance of the head and the mean of a class is the less certain the fewer images it has. Term by term::

    --set train.loss=ce                               without margins
    --set train.objective=classify                    without mixup
    --set train.augment=crop-flip                     without strong augmentation
    --set train.optimizer=sgd                         without SAM
    --set train.optimizer_options.class_aware=0       SAM's part of the batch drawn from all classes alike
    --set train.rho_start=100                         SAM from an epoch on
    ours+sam                                          SAM on the whole batch: two steps of SGD a step

A contrastive term in the place of mixup, on two views of its own, which makes three times the work::

    --set train.objective=contrastive --set train.objective_options.kind=proco --set train.head=contrastive
    --set train.views=simclr,simclr

Mixup's alpha and the last stage were chosen on images held out of the training set of digits
(recipe_terms-development.json under benchmarks/results); the other numbers are ours and untuned. Tried there and left:
CC-SAM's and MiSLAS's second stages in the place of ours, mixtures with class-balanced partners, and averages of the
weights. A former recipe contrasted the same view by ProCo's loss and began SAM in the middle of training, which cost
accuracy on Digits-LT (recipe_terms-former.json).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from saddlescape.methods.recipe import Facts, Recipe
from saddlescape.methods.systems.plda import plda_stage
from saddlescape.methods.systems.system import System
from saddlescape.records.config import Options, Stage


def _stages(facts: Facts, own: Mapping[str, Any], first: Recipe) -> tuple[Stage, ...]:
    stage = replace(
        first.stages[0],
        objective="mixup",
        objective_options={"alpha": float(own["alpha"])},
        loss="la",
        freeze_bn_stats=True,
    )
    if stage.optimizer == "sgd":
        options: Options = {"share": float(own["share"])}
        stage = replace(stage, optimizer="partial-sam", optimizer_options=options, rho=(float(own["rho"]),))
    return stage, plda_stage(stage, own)


OURS = System(
    "ours",
    "logit-adjusted loss of mixtures, strong augmentation, cosine schedule, class-aware SAM; then PLDA",
    "this library",
    _stages,
    notes=lambda own: ("ours: our own recipe; its numbers are not published anywhere",),
)
