"""Our own recipe: margins, strong augmentation, a contrastive term and class-aware SAM, each of which can be left out.

Logit-adjusted cross-entropy; ProCo's loss on the same view, which costs a projection and no further pass; and, from the
middle of training on, SAM whose ascent sees a quarter of each batch with every tail image in it: 1.25 steps of SGD a
step then, 1 before. Term by term::

    --set train.loss=ce                               without margins
    --set train.augment=crop-flip                     without strong augmentation
    --set train.objective_options.weight=0            without the contrastive term
    --set train.objective_options.kind=bcl --set train.head=bcl      BCL's in place of ProCo's
    --set train.views=simclr,simclr                   contrast on two views of their own: three passes
    --set train.optimizer=sgd                         without SAM
    --set train.rho_start=0                           SAM from the first epoch on
    --set train.optimizer_options.class_aware=0       SAM's part of the batch drawn from all classes alike
    ours+sam                                          SAM on the whole batch, from the middle on

The numbers are ours and untuned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from saddlescape.methods.recipe import Facts, Recipe
from saddlescape.methods.systems.system import System
from saddlescape.training.stage import Options, Stage


def _stages(facts: Facts, own: Mapping[str, Any], first: Recipe) -> tuple[Stage, ...]:
    stage = replace(
        first.stages[0],
        loss="la",
        objective="contrastive",
        objective_options={"kind": "proco", "weight": float(own["weight"]), "temperature": float(own["temperature"])},
        head="contrastive",
        rho_start=int(own["epochs_before_sam"]),
        freeze_bn_stats=True,
    )
    if stage.optimizer == "sgd":
        options: Options = {"share": float(own["share"])}
        stage = replace(stage, optimizer="partial-sam", optimizer_options=options, rho=(float(own["rho"]),))
    return (stage,)


OURS = System(
    "ours",
    "logit-adjusted loss, strong augmentation, ProCo on the same view, class-aware SAM on part of the batch, late",
    "this library",
    _stages,
    notes=lambda own: ("ours: our own recipe; its numbers are not published anywhere",),
)
