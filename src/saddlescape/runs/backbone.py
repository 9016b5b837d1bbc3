"""A pretrained network that was asked for: which weights it has and how its images are made, for the configuration."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import cast

from torch import nn

from saddlescape.data.types import Preprocess
from saddlescape.disk import expanded
from saddlescape.errors import InputError
from saddlescape.models.backbone import is_backbone, load_backbone, weights_hash
from saddlescape.models.registry import model_names, own_network
from saddlescape.records.config import BackboneConfig, DataConfig, RunConfig, check_flags
from saddlescape.runs.request import Request

FIXED_SIZE = ("digits", "cifar10", "cifar100")  # images of these sets are scaled inside the network


def backbone_of(request: Request) -> str:
    """The name of the pretrained network that was asked for, or "".

    Raises:
        InputError: flags that contradict each other.
    """
    name = request.backbone or (request.model or "" if request.pretrained else "")
    if request.pretrained and request.backbone is None and not (request.model or "").startswith("timm/"):
        raise InputError("--pretrained needs --model timm/NAME; --backbone takes networks from everywhere")
    if name and request.model not in (None, name):
        raise InputError(f"--model {request.model} and --backbone {name} both name the network: leave one of them out")
    if request.tune is not None:
        check_flags({"tune": request.tune}, BackboneConfig)
    if request.weights is not None and not name:
        raise InputError("--weights are those of a backbone: say --backbone NAME too")
    if request.mirror and not name:
        raise InputError("--mirror is about the features of a backbone: say --backbone NAME too")
    if request.tune is not None and not name:
        raise InputError("--tune says what of a backbone is trained: say --backbone NAME too")
    if name and not is_backbone(name) and name not in model_names():
        raise InputError(
            f"unknown backbone {name!r}; use timm/NAME, torchvision/NAME, transformers/NAME_OR_FOLDER, "
            f"package.module:function, or {', '.join(model_names())} with --weights"
        )
    return name


def resolved(request: Request, data: DataConfig, name: str) -> tuple[str, DataConfig, BackboneConfig, str]:
    """Build the network once: its full name, ``data`` with its preprocessing, what it is built with again, and a note.

    Raises:
        InputError: the network cannot be built, its weights not be had or do not fit.
    """
    weights = "" if request.weights is None else str(expanded(request.weights).resolve())
    provider, _, rest = name.partition("/")
    if provider == "transformers" and expanded(rest).is_dir():
        name = f"{provider}/{expanded(rest).resolve()}"
    own = None if is_backbone(name) else partial(own_network, name)
    source = load_backbone(name, weights, own=own)
    size = request.image_size or source.image_size
    data = dataclasses.replace(
        data,
        image_size=0 if data.name in FIXED_SIZE else size,
        resize_to=round(size * source.resize_to / source.image_size),
        interpolation=source.interpolation,
        mean=source.mean,
        std=source.std,
    )
    found = weights_hash(source.network)
    network = BackboneConfig(
        tune=request.tune or ("all" if request.pretrained else "head"),
        weights=weights, weights_hash=found, input_size=size, interpolation=source.interpolation,
        architecture=source.architecture, mirror=request.mirror,
    )  # fmt: skip
    millions = sum(each.numel() for each in source.network.parameters()) / 1e6
    note = f"backbone {name}: {millions:.1f} million parameters, weights {found}, {size} x {size} pixels"
    if source.assumed:
        note += "; it brings no mean and std: ImageNet's are taken; if it was trained with others, set its default_cfg"
    return name, data, network, note


def preprocess_of(data: DataConfig) -> Preprocess | None:
    """The backbone's preprocessing in a configuration; None where the data have their own."""
    if not data.mean:
        return None
    return Preprocess(
        image_size=data.image_size, resize_to=data.resize_to, interpolation=data.interpolation,
        mean=data.mean, std=data.std,
    )  # fmt: skip


def require_weights(config: RunConfig, model: nn.Module) -> None:
    """Raises InputError where a backbone's weights are no longer those that the run was planned with."""
    found = weights_hash(cast(nn.Module, model.backbone))
    if found != config.backbone.weights_hash:
        raise InputError(
            f"the weights of backbone {config.model!r} are {found}, this run was planned with "
            f"{config.backbone.weights_hash}: restore them, or choose another --out"
        )
