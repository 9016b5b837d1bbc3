"""Models by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from saddlescape.errors import InputError, near
from saddlescape.models import resnet
from saddlescape.models.backbone import Backbone, feature_dim, is_backbone, load_backbone
from saddlescape.models.heads import HeadKind, make_head
from saddlescape.models.identity import Identity
from saddlescape.models.lora import add_lora
from saddlescape.models.resnet import ResNet
from saddlescape.models.resnet_cifar import ResNetCifar
from saddlescape.models.small_cnn import SmallCNN

# name -> (length of the features, what makes the network from a head and the number of channels)
_BUILDERS: dict[str, tuple[int, Callable[[nn.Module, int], nn.Module]]] = {
    "smallcnn": (SmallCNN.feature_dim, SmallCNN),
    "resnet20": (64, lambda head, channels: ResNetCifar(20, head, channels)),
    "resnet32": (64, lambda head, channels: ResNetCifar(32, head, channels)),
    "resnet44": (64, lambda head, channels: ResNetCifar(44, head, channels)),
    "resnet56": (64, lambda head, channels: ResNetCifar(56, head, channels)),
    "resnet32-wide": (256, lambda head, channels: ResNetCifar(32, head, channels, width=64)),
    "resnet34-cifar": (512, lambda head, channels: ResNet("resnet34", head, channels, stem="cifar")),
}


def model_names() -> list[str]:
    """Names that ``build_model`` knows; beside them those of backbones (see ``saddlescape.models.backbone``)."""
    return [*_BUILDERS, *resnet.ARCHITECTURES, "features"]


def build_model(
    name: str, num_classes: int, head: HeadKind = "linear", in_channels: int = 3, **options: Any
) -> nn.Module:
    """Build a classifier: images [N, in_channels, H, W], floating point -> logits [N, num_classes].

    Args:
        name: "resnet20/32/44/56" for 32x32 images, "resnet32-wide" (64-128-256 channels) and "resnet34-cifar" (stem
            of stride 1, no pooling) as GLMC and ImbSAM have them, "resnet18/34/50/101/152" and "resnext50_32x4d"
            (option ``stem="cifar"`` for small images), "smallcnn" for 8x8, "features" (no network: the inputs
            [N, in_channels, 1, 1] are features), or a backbone (see ``saddlescape.models.backbone``): "timm/<name>",
            "package.module:function" ...
        options: of a backbone ``pretrained=True`` (the provider's weights), ``weights=FILE``, ``input_size`` (pixels a
            side that other images are scaled to), ``interpolation``, ``architecture``, ``lora`` (rank of small
            matrices beside its attention), ``mirror`` (see ``Backbone``), and the provider's own; any of them makes a
            backbone of our own networks.
        head: a key of ``HEADS``: "linear", "cosine" for LDAM, and those of the two-stage and contrastive systems.

    ``model.features(x)`` is what the head sees, [N, d]; ``model.head`` reads and replaces the head;
    ``model.feature_dim`` is d.

    Raises:
        InputError: an unknown name (with near matches), head or option; fewer than two classes; unfit weights.
        MissingExtraError: a backbone of a package that is not installed.
    """
    if in_channels < 1:
        raise InputError(f"in_channels is {in_channels}; images have at least one channel")
    if is_backbone(name) or options.keys() & {"pretrained", "weights", "input_size"}:
        return _backbone(name, num_classes, head, in_channels, **options)
    if name not in model_names():
        known = [*model_names(), "timm/<name>", "package.module:function"]
        raise InputError(f"unknown model {name!r}; {near(name, known)}")
    allowed = {"stem"} if name in resnet.ARCHITECTURES else set()
    for option in sorted(set(options) - allowed):
        raise InputError(f"model {name!r} has no option {option!r}; it has {', '.join(sorted(allowed)) or 'none'}")
    if name in resnet.ARCHITECTURES:
        return ResNet(name, make_head(head, resnet.feature_dim(name), num_classes), in_channels, **options)
    if name == "features":
        return Identity(make_head(head, in_channels, num_classes), in_channels)
    feature_dim, builder = _BUILDERS[name]
    return builder(make_head(head, feature_dim, num_classes), in_channels)


def own_network(name: str) -> nn.Module:
    """One of our networks for images of three channels, without a head: images -> features."""
    model = build_model(name, 2)
    model.head = nn.Identity()
    return model


def _backbone(
    name: str,
    num_classes: int,
    head: HeadKind,
    in_channels: int,
    input_size: int = 0,
    interpolation: str = "bilinear",
    lora: int = 0,
    mirror: bool = False,
    pretrained: bool = False,
    **options: Any,
) -> Backbone:
    if name.startswith("timm/") and not input_size:
        options["in_chans"] = in_channels
    own = None if is_backbone(name) else partial(own_network, name)
    source = load_backbone(name, pretrained=pretrained, own=own, **options)
    channels = options.get("in_chans", 3)
    if lora:
        add_lora(source.network, lora, name)
    width = feature_dim(source.network, name, channels, input_size or source.image_size)
    return Backbone(
        source.network, make_head(head, width, num_classes), width, input_size, interpolation, channels, mirror
    )
