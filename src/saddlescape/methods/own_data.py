"""The start for a person's own images: method and numbers follow from size, counts and imbalance, with reasons."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from saddlescape.errors import counted
from saddlescape.methods.recipe import Facts

# Images shown in all on a CPU of two cores in about three minutes: steps of ResNet-32 on 32 x 32 pixels, measured.
CPU_BUDGET_IMAGES = 120_000
GPU_BUDGET_IMAGES = 4_000_000
FEATURE_ROWS = 250_000  # rows of features shown in all: seconds on any machine


def default_method(facts: Facts) -> tuple[str, str]:
    """(method, reason)."""
    if facts.features:
        return "la", "logit adjustment is the best single head on frozen features here; plda needs no training at all"
    if facts.imbalance < 1.5:
        return "ce", f"the classes are nearly balanced (imbalance {facts.imbalance:.1f}): nothing to re-weight"
    return "plda", (
        f"imbalance {facts.imbalance:.0f}: the best mean over classes of small sets that gives up no large class "
        "(benchmarks/own_data.py)"
    )


def adapt(table: dict[str, Any], facts: Facts, decided: Collection[str] = ()) -> tuple[dict[str, Any], list[str]]:
    """The ``[own]`` recipe adapted to ``facts``; returns it with one line of reason for each choice.

    ``decided`` names what the person has decided ("model", "batch_size", "lr", "epochs"): no reason is given for it.
    """
    adapted, notes = dict(table), []
    if facts.features:
        adapted["epochs"] = max(20, min(400, FEATURE_ROWS // max(facts.images, 1)))
        adapted["reweight_start"] = adapted["epochs"] // 2
        if "epochs" not in decided:
            notes.append(f"{counted(adapted['epochs'], 'epoch')} of {facts.images} rows: a head on features is quick")
        return adapted, notes
    side = facts.image_size
    if side <= 16:
        adapted["model"] = "smallcnn"
    elif side <= 64:
        adapted["model"] = "resnet32"
    else:
        adapted["model"] = "resnet18"
    if "model" not in decided:
        notes.append(f"model {adapted['model']}: images are {side} x {side}")
    batch = 128
    while batch > 16 and facts.images < 16 * batch:  # at least about sixteen steps an epoch
        batch //= 2
    adapted["batch_size"] = batch
    adapted["lr"] = float(table["lr"]) * batch / 128
    if not {"batch_size", "lr"} & set(decided):
        notes.append(
            f"batch {batch}, lr {adapted['lr']:g}: {facts.images} training images, lr in proportion to the batch"
        )
    budget = GPU_BUDGET_IMAGES if facts.device_type == "cuda" else CPU_BUDGET_IMAGES * (32 * 32) // max(side * side, 64)
    epochs = max(10, min(200, budget // max(facts.images, 1)))
    adapted["epochs"] = epochs
    adapted["reweight_start"] = int(epochs * 0.8)
    if "epochs" not in decided:
        notes.append(f"{counted(epochs, 'epoch')}: what fits a few minutes on a {facts.device_type}; --epochs for more")
    return adapted, notes
