"""The single-stage rows of the paper, and every other legal sum: one stage from a sum and a published recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saddlescape.methods.grammar import Sum
from saddlescape.methods.recipe import Facts, Recipe
from saddlescape.published import optimizer_recipe
from saddlescape.records.config import Options, Stage
from saddlescape.schedules import stretch


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
    optimizer, rho_start = "sgd", 0
    rho: tuple[float, ...] = ()
    optimizer_options: Options = {}
    if method.optimizer != "sgd":
        optimizer, rho, optimizer_options, rho_start = _optimizer(method, facts, table, total, notes)
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
        nesterov=bool(table.get("nesterov", False)),
        weight_decay=float(table["weight_decay"]),
        optimizer=optimizer,
        optimizer_options=optimizer_options,
        rho=rho,
        rho_schedule={0: "constant", 1: "constant", 2: "step"}.get(len(rho), "large-scale-step"),
        rho_start=rho_start,
        freeze_bn_stats=bool(table["freeze_bn_stats"]),
    )
    return Recipe(method=str(method), model=str(table["model"]), stages=(stage,), notes=tuple(notes))


def _optimizer(
    method: Sum, facts: Facts, table: Mapping[str, Any], total: int, notes: list[str]
) -> tuple[str, tuple[float, ...], Options, int]:
    """(name, radii, options, first epoch) of a sum's optimiser; what is not published is said in ``notes``."""
    own = optimizer_recipe(method.optimizer, facts.dataset)
    options: Options = dict(own["options"])
    if "rho" in own:
        listed = own["rho"] if isinstance(own["rho"], list) else [own["rho"]]
        rho: tuple[float, ...] = tuple(map(float, listed))
        what = "a random vector of this length" if method.optimizer == "pgd" else "as its authors have it elsewhere"
        radii = " then ".join(f"{radius:g}" for radius in rho)
        notes.append(f"{method.optimizer}: rho {radii}, {what}; the paper's tables have no such row")
    else:
        found = table["rho"].get(method.row, table["rho"]["default"])
        factor = float(own["over_sam"])
        rho = tuple(round(factor * value, 10) for value in found)
        if method.row not in table["rho"]:
            notes.append(f"rho {rho[0]:g}: no published value for {method}, ours")
        elif factor != 1:
            notes.append(f"rho {rho[0]:g}: {factor:g} times SAM's, by its authors' rule of thumb")
    if method.optimizer == "ssesam":
        options["total_steps"] = float(total * -(-facts.images // int(table["batch_size"])))
    return str(own["optimizer"]), rho, options, int(total * float(own.get("start", 0.0)))
