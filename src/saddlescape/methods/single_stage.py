"""The single-stage rows of the paper, and every other legal sum: one stage from a sum and a published recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saddlescape.methods.grammar import OPTIMIZERS, Sum
from saddlescape.methods.recipe import Facts, Recipe
from saddlescape.schedules import stretch
from saddlescape.training.stage import Options, Stage

# Published next to SAM's: ASAM's radius is about ten times SAM's (davda54/sam), Momentum-SAM's about fifteen times.
RADIUS_OVER_SAM = {"sam": 1.0, "asam": 10.0, "msam": 15.0}
PGD = {"radius": 0.05, "t_thr": 100.0}


def build(method: Sum, facts: Facts, table: Mapping[str, Any], epochs: int | None = None) -> Recipe:
    """Fill one stage with the numbers of ``table`` (a data set's part of ``recipes.toml``).

    ``epochs`` other than the table's stretch every milestone by the one rule of ``schedules.stretch``.
    """
    table = {**table, **table.get("per_loss", {}).get(method.loss, {})}
    reference = int(table["epochs"])
    total = epochs or reference
    notes: list[str] = []
    start = stretch(int(table["reweight_start"]), total, reference)
    loss, options, early, loss_start = method.loss, dict(table.get("loss", {}).get(method.loss, {})), "", 0
    lr_schedule = str(table["lr_schedule"])
    if loss == "ib":
        early, loss_start = "ce", stretch(reference // 2, total, reference)
        lr_schedule = "ib" if lr_schedule == "paper-cifar" else lr_schedule
        notes.append(f"ib: cross-entropy before epoch {loss_start + 1}, as its authors train it")
    rho: tuple[float, ...] = ()
    optimizer_options: Options = {}
    if method.optimizer in RADIUS_OVER_SAM:
        radii = table["rho"]
        found = radii.get(method.row, radii["default"])
        factor = RADIUS_OVER_SAM[method.optimizer]
        rho = tuple(round(factor * value, 10) for value in found)
        if method.row not in radii:
            notes.append(f"rho {rho[0]:g}: no published value for {method}, ours")
        elif factor != 1:
            notes.append(f"rho {rho[0]:g}: {factor:g} times SAM's, by its authors' rule of thumb")
    elif method.optimizer == "pgd":
        given = dict(PGD | table.get("pgd", {}))
        rho, optimizer_options = (float(given.pop("radius")),), given
        notes.append(
            f"pgd: a random vector, uniform in a ball of radius {rho[0]:g}, every {given['t_thr']:g} steps; ours, the "
            "paper's were not published"
        )
    stage = Stage(
        name="train",
        epochs=total,
        batch_size=int(table["batch_size"]),
        loss=loss,
        loss_options=options,
        early_loss=early,
        loss_start=loss_start,
        reweight={"drw": "drw", "rw": "always"}.get(method.balance, "none"),
        reweight_start=start if method.balance == "drw" else 0,
        sampler="effective-number" if method.balance == "rs" else "instance-balanced",
        augment=facts.augment if table["augment"] == "auto" else str(table["augment"]),
        head="cosine" if loss == "ldam" else "linear",
        lr=float(table["lr"]),
        lr_schedule=lr_schedule,
        momentum=float(table["momentum"]),
        weight_decay=float(table["weight_decay"]),
        optimizer=OPTIMIZERS.get(method.optimizer, "sgd"),
        optimizer_options=optimizer_options,
        rho=rho,
        rho_schedule="step" if len(rho) > 1 else "constant",
        freeze_bn_stats=bool(table["freeze_bn_stats"]),
    )
    return Recipe(method=str(method), model=str(table["model"]), stages=(stage,), notes=tuple(notes))
