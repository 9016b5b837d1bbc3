"""Which parameters a stage trains, and in which groups."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from saddlescape.errors import InputError
from saddlescape.records.config import Stage
from saddlescape.training.objective import Objective


def is_frozen(spec: str) -> bool:
    """Whether no parameter outside the head is trained; see :func:`select_trainable`."""
    return all(piece in ("none", "head") or piece.startswith("head.") for piece in map(str.strip, spec.split(",")))


def select_trainable(model: nn.Module, spec: str) -> list[tuple[str, nn.Parameter]]:
    """Turn gradients on for the parameters that ``spec`` names and off for all others; returns the former, named.

    "all", "none", "head", "backbone" (all but the head), "norm" (layers of normalisation), "lora" (the matrices of
    ``models.lora``), or beginnings of names joined by commas, where "head." stands for whatever the network calls its
    head: "head.scale", "head.alpha,head.beta", "norm,head".

    Raises:
        InputError: a name that no parameter begins with.
    """
    names = own_names(model)
    kinds = {"all": {*names}, "backbone": {name for name in names if not _begins(name, "head")}}
    kinds["norm"] = {name for name in names if name.rpartition(".")[0] in norms(model)}
    kinds["lora"] = {name for name in names if "lora_" in name}
    wanted = [] if spec.strip() == "none" else [piece.strip() for piece in spec.split(",")]
    for piece in wanted:
        if piece in ("norm", "lora") and not kinds[piece]:
            raise InputError(f"trainable is {spec!r}: this network has no {piece} parameters; train all of it")
        if piece not in kinds and not any(_begins(name, piece) for name in names):
            known = ", ".join(name for name in names if name.startswith("head"))
            raise InputError(f"trainable is {spec!r}: no parameter is called {piece!r}; those of the head are {known}")
    chosen = []
    for name, parameter in names.items():
        inside = any(name in kinds[piece] if piece in kinds else _begins(name, piece) for piece in wanted)
        parameter.requires_grad_(inside)
        if inside:
            chosen.append((name, parameter))
    return chosen


def norms(model: nn.Module) -> set[str]:
    """Names of the layers of normalisation: BatchNorm, LayerNorm, GroupNorm, and others that are called so."""
    return {name for name, module in model.named_modules() if "norm" in type(module).__name__.lower()}


def own_names(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by name, those of the head as ``head.*`` whatever the network calls it."""
    head = {id(parameter): f"head.{name}" for name, parameter in cast(nn.Module, model.head).named_parameters()}
    return {head.get(id(parameter), name): parameter for name, parameter in model.named_parameters()}


def _begins(name: str, piece: str) -> bool:
    return name == piece or name.startswith(f"{piece}.")


def parameter_groups(stage: Stage, model: nn.Module, objective: Objective) -> list[dict[str, Any]]:
    """Groups for the optimiser: one, or one per factor on the learning rate; the objective's own parameters last."""
    groups: dict[float, list[nn.Parameter]] = {}
    chosen = select_trainable(model, stage.trainable)
    for piece in stage.lr_factors:
        if not any(_begins(name, piece) for name, _ in chosen):
            raise InputError(f"lr_factors: no trained parameter is called {piece!r}")
    for name, parameter in chosen:
        factors = [factor for piece, factor in stage.lr_factors.items() if _begins(name, piece)]
        groups.setdefault(factors[0] if factors else 1.0, []).append(parameter)
    built: list[dict[str, Any]] = [
        {"params": parameters} if factor == 1 else {"params": parameters, "lr_factor": factor}
        for factor, parameters in groups.items()
    ]
    own = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    return [*built, {"params": own}] if own else built or [{"params": []}]
