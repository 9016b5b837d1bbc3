"""A method on a pretrained network: a linear classifier on its features, then some or all of its weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from saddlescape.methods.recipe import Recipe
from saddlescape.published import fine_tuning
from saddlescape.records.config import Stage

DEFAULT = "la"
TRAINABLE = {"norm": "norm,head", "lora": "lora,head", "all": "all"}


def table_of(tune: str) -> dict[str, Any]:
    """The recipe of fine-tuning ``tune``, with the keys of a data set's."""
    found = fine_tuning()
    table = {**found["usual"], **found[tune]}
    return table | {"reweight_start": int(table["reweight_start"] * table["epochs"])}


def fine_tuned(recipe: Recipe, tune: str) -> Recipe:
    """``recipe`` from the features of a pretrained network on: its first stage trains what ``tune`` says, after a stage
    that fits the head."""
    table, first = table_of(tune), recipe.stages[0]
    probe = Stage(
        name="probe", epochs=1, batch_size=first.batch_size, loss="la", head=first.head, head_fit="probe",
        head_fit_options={"decay": float(table["probe_decay"])}, trainable="none", backbone_mode="eval",
        augment=first.augment,
    )  # fmt: skip
    # Statistics of ImageNet stay: with those of a batch the fitted head would see other features than it was fitted on.
    factors = dict(table["lr_factors"])
    first = replace(first, backbone_mode="eval", trainable=TRAINABLE[tune], lr_factors=factors)
    return replace(recipe, stages=(probe, first, *recipe.stages[1:]))
