"""What a system is: how it is described, what its first stage may be, and how its stages are filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Protocol

from saddlescape.errors import InputError
from saddlescape.methods import single_stage
from saddlescape.methods.grammar import Sum
from saddlescape.methods.recipe import Facts, Recipe
from saddlescape.published import system_recipe
from saddlescape.records.config import Options, Stage
from saddlescape.schedules import stretch

Numbers = Mapping[str, Any]


class Build(Protocol):
    """``facts`` of the data, ``own`` numbers of the system (``published/systems.toml``), and its ``first`` stage."""

    def __call__(self, facts: Facts, own: Numbers, first: Stage) -> tuple[Stage, ...]: ...


@dataclass(frozen=True)
class System:
    """A method of several stages, or one whose single stage is no sum.

    ``stages(facts, own, first)`` gets the stage that the sum or the optimiser in the method's name asks for, and gives
    all the stages. ``any_sum``: the first stage may be any legal sum (cRT on LDAM + DRW); else only an optimiser may be
    added, and with ``own_optimizer`` not even that.
    """

    text: str
    source: str
    stages: Build
    _: KW_ONLY
    any_sum: bool = False
    own_optimizer: bool = False
    passes: float = 1.0  # of a step of the first stage, forward and backward
    notes: tuple[str, ...] = ()


def build(name: str, system: System, first: Sum, facts: Facts, table: Numbers, epochs: int | None) -> Recipe:
    """Fill in ``system`` on top of ``first``; ``epochs`` is the length of the first stage, others stretch with it.

    Raises:
        InputError: an optimiser for a system that has its own.
    """
    if system.own_optimizer and first.optimizer != "sgd":
        raise InputError(f"{name} brings its own optimiser: leave {first.optimizer} out")
    own = system_recipe(name, facts.dataset, facts.imbalance, first.optimizer, epochs or int(table["epochs"]))
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
    stages = system.stages(facts, {**own, **lengths}, recipe.stages[0])
    rest = str(first).removeprefix("ce").lstrip("+")
    return replace(
        recipe,
        method=f"{name}+{rest}" if rest else name,
        model=str(own.get("model", recipe.model)),
        stages=stages,
        notes=(*recipe.notes, *system.notes),
    )


def numbers(own: Numbers, *names: str) -> Options:
    """These of the system's numbers, as options of a stage."""
    return {name: float(own[name]) for name in names}


def mixup_stage(first: Stage, own: Numbers) -> Stage:
    """The first stage with mixup, ``alpha`` the system's."""
    return replace(first, objective="mixup", objective_options=numbers(own, "alpha"))


def classifier_stage(first: Stage, own: Numbers, **changes: Any) -> Stage:
    """A second stage that trains the head alone with plain SGD on the images of ``first``, one schedule of its own."""
    stage = Stage(
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
    )
    return replace(stage, **changes)


def fitted_stage(first: Stage, head: str, **options: float | str) -> Stage:
    """A second stage that sets a head of this kind in closed form from the features of the images of ``first``."""
    return Stage(
        name="classifier", epochs=1, batch_size=first.batch_size, head=head, head_fit=head, head_fit_options=options,
        trainable="none", augment=first.augment, backbone_mode="eval",
    )  # fmt: skip
