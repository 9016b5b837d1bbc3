"""What a system is: how it is described, what its first stage may be, and how its stages are filled in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Protocol

from saddlescape.methods import single_stage
from saddlescape.methods.grammar import Sum
from saddlescape.methods.recipe import Facts, Recipe
from saddlescape.published import system_recipe
from saddlescape.records.config import Stage
from saddlescape.schedules import stretch


class Build(Protocol):
    """``facts`` of the data, ``own`` numbers of the system, and its ``first`` stage as a recipe."""

    def __call__(self, facts: Facts, own: Mapping[str, Any], first: Recipe) -> tuple[Stage, ...]: ...


@dataclass(frozen=True)
class System:
    """A method of several stages, or one whose single stage is no sum.

    ``stages(facts, own, first)`` gets the data's facts, the system's own numbers (``published/systems.toml``) and the
    recipe of the sum that its first stage is, and gives all the stages. ``any_sum``: the first stage may be any legal
    sum (cRT on LDAM + DRW); else only an optimiser may be added.
    """

    name: str
    text: str
    source: str
    stages: Build
    _: KW_ONLY
    any_sum: bool = False
    notes: Callable[[Mapping[str, Any]], tuple[str, ...]] = lambda own: ()


def build(system: System, first: Sum, facts: Facts, table: Mapping[str, Any], epochs: int | None) -> Recipe:
    """Fill in ``system`` on top of ``first``; ``epochs`` is the length of the first stage, others stretch with it."""
    own = system_recipe(system.name, facts.dataset, facts.imbalance, first.optimizer)
    changed = dict(table) | {key: value for key, value in own.get("first", {}).items() if key != "rho"}
    if "epochs" in own.get("first", {}):
        changed["reweight_start"] = stretch(int(table["reweight_start"]), int(changed["epochs"]), int(table["epochs"]))
    if "rho" in own.get("first", {}):
        changed["rho"] = {"default": own["first"]["rho"]}
    recipe = single_stage.build(first, facts, changed, epochs)
    total = recipe.stages[0].epochs
    lengths = {
        key: max(1, stretch(int(own[key]), total, int(changed["epochs"]))) for key in own if key.startswith("epochs")
    }
    stages = system.stages(facts, {**own, **lengths}, recipe)
    rest = str(first).removeprefix("ce").lstrip("+")
    return replace(
        recipe,
        method=f"{system.name}+{rest}" if rest else system.name,
        model=str(own.get("model", recipe.model)),
        stages=stages,
        notes=(*recipe.notes, *system.notes(own)),
    )


def classifier_stage(first: Stage, own: Mapping[str, Any], **changes: Any) -> Stage:
    """A second stage that trains the head alone with plain SGD on the images of ``first``, one schedule of its own."""
    return Stage(
        name="classifier",
        epochs=int(own["epochs"]),
        batch_size=int(own.get("batch_size", first.batch_size)),
        augment=first.augment,
        head=first.head,
        trainable="head",
        lr=float(own["lr"]),
        lr_schedule=str(own.get("lr_schedule", "cosine")),
        momentum=first.momentum,
        weight_decay=float(own.get("weight_decay", first.weight_decay)),
        backbone_mode=str(own.get("backbone_mode", "eval")),
        **changes,
    )
