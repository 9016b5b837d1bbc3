"""Any image classifier of timm behind the same ``features`` and ``head``."""

from __future__ import annotations

import difflib
from typing import Any, cast

from torch import Tensor, nn

from saddlescape.errors import InputError, MissingExtraError
from saddlescape.models.heads import HeadKind, make_head
from saddlescape.models.network import Network


class TimmModel(Network):
    """A timm network without its classifier (``backbone``) and a head of ours (``classifier``).

    ``forward``: images [N, in_channels, H, W] -> logits [N, C]; ``features``: -> pooled features [N, d].
    """

    head_name = "classifier"

    def __init__(self, backbone: nn.Module, head: nn.Module, feature_dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = head
        self.feature_dim = feature_dim

    def features(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.backbone(x))


def build_timm_model(
    name: str,
    num_classes: int,
    head: HeadKind = "linear",
    in_channels: int = 3,
    pretrained: bool = False,
    **options: Any,
) -> TimmModel:
    """Build timm's ``name`` with a fresh head.

    Args:
        name: timm's name, without the ``timm/`` in front.
        pretrained: load the weights that timm knows for it; timm downloads them unless they are on the machine.
        options: handed on to ``timm.create_model``.

    Raises:
        MissingExtraError: timm is not installed.
        InputError: timm does not know the name (with near matches), or not these options.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        # timm itself needs torchvision, so the missing package may be that one.
        raise MissingExtraError(f"model 'timm/{name}'", "timm", error.name or "timm") from error
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f"did you mean {' or '.join('timm/' + match for match in near)}?" if near else "see timm.list_models()"
        raise InputError(f"timm has no model {name!r}; {hint}")
    # num_classes=0 is timm's way to ask for pooled features in place of logits.
    try:
        backbone = timm.create_model(name, pretrained=pretrained, num_classes=0, in_chans=in_channels, **options)
    except TypeError as error:
        raise InputError(f"timm could not build {name!r} with {options}: {error}") from error
    # Some networks have a hidden layer between pooling and classifier, which their features then include.
    width = int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)
    return TimmModel(backbone, make_head(head, width, num_classes), width)
