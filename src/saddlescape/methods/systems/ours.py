"""Our own recipe: margins, strong augmentation and class-aware SAM, each of which can be left out.

Logit-adjusted cross-entropy, a cosine schedule, AutoAugment with Cutout where there are 32 pixels to augment, and SAM
whose ascent sees a quarter of each batch with every tail image in it: 1.25 steps of SGD a step. Term by term::

    --set train.loss=ce                               without margins
    --set train.augment=crop-flip                     without strong augmentation
    --set train.optimizer=sgd                         without SAM
    --set train.optimizer_options.class_aware=0       SAM's part of the batch drawn from all classes alike
    --set train.rho_start=100                         SAM from an epoch on
    ours+sam                                          SAM on the whole batch: two steps of SGD a step

A contrastive term beside it, on two views of its own, which makes three times the work::

    --set train.objective=contrastive --set train.objective_options.kind=proco --set train.head=contrastive
    --set train.views=simclr,simclr

The numbers are ours and untuned. Two things were tried and went: a former recipe contrasted the same view by ProCo's
loss and began SAM in the middle of training, which cost accuracy on Digits-LT (recipe_terms-former.json under
benchmarks/results); and mixup with a larger weight decay, chosen on images held out of the training set of digits
(recipe_terms-development.json), did no better on its test images than no choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from saddlescape.methods.recipe import Facts, Recipe
from saddlescape.methods.systems.system import System
from saddlescape.training.stage import Options, Stage


def _stages(facts: Facts, own: Mapping[str, Any], first: Recipe) -> tuple[Stage, ...]:
    stage = replace(first.stages[0], loss="la", freeze_bn_stats=True)
    if stage.optimizer == "sgd":
        options: Options = {"share": float(own["share"])}
        stage = replace(stage, optimizer="partial-sam", optimizer_options=options, rho=(float(own["rho"]),))
    return (stage,)


OURS = System(
    "ours",
    "logit-adjusted loss, strong augmentation, cosine schedule, class-aware SAM on part of the batch",
    "this library",
    _stages,
    notes=lambda own: ("ours: our own recipe; its numbers are not published anywhere",),
)
