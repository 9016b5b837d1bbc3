"""Models by name."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn

from saddlescape.errors import InputError
from saddlescape.models import resnet, resnet_cifar
from saddlescape.models.heads import HeadKind, make_head
from saddlescape.models.resnet import ResNet
from saddlescape.models.resnet_cifar import ResNetCifar
from saddlescape.models.small_cnn import SmallCNN
from saddlescape.models.timm_models import build_timm_model


def model_names() -> list[str]:
    """Names that ``build_model`` knows; beside them ``timm/<any>`` where timm is installed."""
    return ["smallcnn", *(f"resnet{depth}" for depth in resnet_cifar.DEPTHS), *resnet.ARCHITECTURES]


def build_model(
    name: str, num_classes: int, head: HeadKind = "linear", in_channels: int = 3, **options: Any
) -> nn.Module:
    """Build a classifier: images [N, in_channels, H, W], floating point -> logits [N, num_classes].

    Args:
        name: "resnet20/32/44/56" for 32x32 images, "resnet18/34/50/101/152" and "resnext50_32x4d" (option
            ``stem="cifar"`` for small images), "smallcnn" for 8x8, or "timm/<name>" (options are timm's, and
            ``pretrained=True``).
        head: "linear", or "cosine" for LDAM.

    ``model.features(x)`` is what the head sees, [N, d]; ``model.head`` reads and replaces the head;
    ``model.feature_dim`` is d.

    Raises:
        InputError: an unknown name (with near matches), head or option; fewer than two classes.
        MissingExtraError: a timm model without timm.
    """
    if in_channels < 1:
        raise InputError(f"in_channels is {in_channels}; images have at least one channel")
    if name.startswith("timm/"):
        return build_timm_model(name.removeprefix("timm/"), num_classes, head, in_channels, **options)
    if name not in model_names():
        near = difflib.get_close_matches(name, model_names(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(model_names())}, timm/<name>"
        raise InputError(f"unknown model {name!r}; {hint}")
    allowed = {"stem"} if name in resnet.ARCHITECTURES else set()
    for option in sorted(set(options) - allowed):
        raise InputError(f"model {name!r} has no option {option!r}; it has {', '.join(sorted(allowed)) or 'none'}")
    if name == "smallcnn":
        return SmallCNN(make_head(head, SmallCNN.feature_dim, num_classes), in_channels)
    if name in resnet.ARCHITECTURES:
        return ResNet(name, make_head(head, resnet.feature_dim(name), num_classes), in_channels, **options)
    depth = int(name.removeprefix("resnet"))
    return ResNetCifar(depth, make_head(head, ResNetCifar.feature_dim, num_classes), in_channels)
