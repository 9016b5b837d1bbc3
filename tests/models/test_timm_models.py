"""timm's models. timm is an extra and brings torchvision with it, so a small double stands in for it here; the wrapper
was checked by hand against timm 1.0.31 (ResNet, ViT, MobileNetV3, ConvNeXt, EfficientNet, VGG)."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saddlescape.errors import InputError, MissingExtraError
from saddlescape.models import CosineHead, TimmModel, build_model


class Backbone(nn.Module):
    """As timm builds it with ``num_classes=0``: a hidden layer after pooling is part of the features."""

    def __init__(self, in_chans: int, hidden: int | None) -> None:
        super().__init__()
        self.num_features = 6
        self.conv = nn.Conv2d(in_chans, 6, 3)
        self.hidden = nn.Linear(6, hidden) if hidden else nn.Identity()
        if hidden:
            self.head_hidden_size = hidden

    def forward(self, x: Tensor) -> Tensor:
        return self.hidden(self.conv(x).mean(dim=(2, 3)))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []

    def create_model(
        name: str, *, pretrained: bool, num_classes: int, in_chans: int, drop_rate: float = 0.0
    ) -> Backbone:
        made.append({"name": name, "pretrained": pretrained, "num_classes": num_classes, "drop_rate": drop_rate})
        return Backbone(in_chans, 9 if name == "with_hidden" else None)

    timm = ModuleType("timm")
    timm.create_model = create_model  # type: ignore[attr-defined]
    timm.is_model = {"plain", "with_hidden"}.__contains__  # type: ignore[attr-defined]
    timm.list_models = lambda: ["plain", "with_hidden"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", timm)
    return made


@pytest.mark.parametrize(("name", "width"), [("plain", 6), ("with_hidden", 9)])
@pytest.mark.parametrize("head", ["linear", "cosine"])
def test_features_and_head(calls: list[dict[str, Any]], name: str, width: int, head: str) -> None:
    model = build_model(f"timm/{name}", 4, head=head, in_channels=1, pretrained=True, drop_rate=0.1)  # type: ignore[arg-type]
    assert calls == [{"name": name, "pretrained": True, "num_classes": 0, "drop_rate": 0.1}]
    assert isinstance(model, TimmModel)
    x = torch.randn(2, 1, 8, 8)
    assert model.features(x).shape == (2, width)
    assert model.feature_dim == width
    assert torch.equal(model(x), model.head(model.features(x)))
    assert isinstance(model.head, CosineHead if head == "cosine" else nn.Linear)
    model.head = nn.Linear(width, 5)
    assert model(x).shape == (2, 5)


def test_unknown_name_and_option(calls: list[dict[str, Any]]) -> None:
    with pytest.raises(InputError, match=r"timm has no model 'plane'; did you mean timm/plain\?"):
        build_model("timm/plane", 4)
    with pytest.raises(InputError, match="timm could not build 'plain' with"):
        build_model("timm/plain", 4, depth=3)
    assert calls == []


def test_without_timm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtraError, match=r"model 'timm/resnet50' needs.*pip install 'saddlescape\[timm\]'"):
        build_model("timm/resnet50", 4)
