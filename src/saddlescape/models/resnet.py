"""ResNet-18/34/50/101/152 (He et al., CVPR 2016) and ResNeXt-50 32x4d (Xie et al., CVPR 2017).

Names, order and shapes of the state dict and the initialisation are torchvision's (the stride of a bottleneck sits in
its 3x3 convolution), so that its checkpoints load.

Deviations from torchvision:

1. the head can be any module (``saddlescape.models.heads``); it is reached as ``model.head`` and stored as ``fc``;
2. ``features(x)`` gives the vector that the head sees;
3. ``stem="cifar"``: a 3x3 convolution of stride 1 and no max-pooling, for images of about 32x32;
4. nothing is done in place, so that the network can be differentiated twice anywhere.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from saddlescape.errors import InputError
from saddlescape.models.network import Network

Stem = Literal["imagenet", "cifar"]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions."""

    expansion: ClassVar[int] = 1

    def __init__(self, in_planes: int, planes: int, stride: int, groups: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _downsample(in_planes, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 (grouped for ResNeXt), 1x1."""

    expansion: ClassVar[int] = 4

    def __init__(self, in_planes: int, planes: int, stride: int, groups: int, width: int) -> None:
        super().__init__()
        inner = planes * width // 64 * groups
        self.conv1 = nn.Conv2d(in_planes, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.downsample = _downsample(in_planes, planes * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return F.relu(out + (x if self.downsample is None else self.downsample(x)))


def _downsample(in_planes: int, planes: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and in_planes == planes:
        return None
    return nn.Sequential(nn.Conv2d(in_planes, planes, 1, stride=stride, bias=False), nn.BatchNorm2d(planes))


# name -> block, blocks per stage, groups, width per group
ARCHITECTURES: dict[str, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int], int, int]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2), 1, 64),
    "resnet34": (BasicBlock, (3, 4, 6, 3), 1, 64),
    "resnet50": (Bottleneck, (3, 4, 6, 3), 1, 64),
    "resnet101": (Bottleneck, (3, 4, 23, 3), 1, 64),
    "resnet152": (Bottleneck, (3, 8, 36, 3), 1, 64),
    "resnext50_32x4d": (Bottleneck, (3, 4, 6, 3), 32, 4),
}


def feature_dim(name: str) -> int:
    """Length of the vector that the head of this architecture sees."""
    return 512 * ARCHITECTURES[name][0].expansion


class ResNet(Network):
    """``forward``: images [N, in_channels, H, W] -> logits [N, C]; ``features``: -> [N, 512 or 2048].

    Args:
        name: a key of ``ARCHITECTURES``.
        head: maps features to logits; kept as it comes, with its own initialisation.
        stem: "imagenet" (7x7 of stride 2, max-pooling) or "cifar" (3x3 of stride 1).
    """

    head_name = "fc"

    def __init__(self, name: str, head: nn.Module, in_channels: int = 3, stem: Stem = "imagenet") -> None:
        super().__init__()
        if stem not in ("imagenet", "cifar"):
            raise InputError(f"unknown stem {stem!r}; known are imagenet, cifar")
        block, blocks, groups, width = ARCHITECTURES[name]
        self.feature_dim = feature_dim(name)
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(in_channels, 64, 7, stride=2, padding=3, bias=False)
        else:
            self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem == "imagenet" else nn.Identity()
        in_planes = 64
        for stage, count in enumerate(blocks):
            planes = 64 * 2**stage
            layers: list[nn.Module] = []
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(block(in_planes, planes, stride, groups, width))
                in_planes = planes * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.fc = head

    def features(self, x: Tensor) -> Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for stage in ("layer1", "layer2", "layer3", "layer4"):
            x = self.get_submodule(stage)(x)
        return x.mean(dim=(2, 3))
