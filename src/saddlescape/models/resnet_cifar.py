"""ResNet-20/32/44/56 for 32x32 images: He et al., CVPR 2016, section 4.2, with the parameter-free option-A shortcut.

Names, order, shapes and initialisation of the parameters are those of the LDAM-DRW code's ``resnet_cifar.py``
(methods: conv1, bn1, layer1..3, linear), so that checkpoints can be exchanged.

Deviations from that code:
1. the head can be any module (``heads.py``); it is reached as ``model.head`` and stored as ``linear``;
2. ``features(x)`` gives the 64-d vector that the head sees;
3. the network takes any image size from 8x8 up, because it pools globally.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from saddlescape.models.heads import HeadAlias

DEPTHS = (20, 32, 44, 56)


class OptionAShortcut(nn.Module):
    """Halve the resolution by taking every second pixel; pad the channels with zeros on both sides."""

    def __init__(self, in_planes: int, planes: int) -> None:
        super().__init__()
        self.padding = (planes - in_planes) // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))


class BasicBlock(nn.Module):
    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Identity() if stride == 1 and in_planes == planes else OptionAShortcut(in_planes, planes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class ResNetCifar(HeadAlias, nn.Module):
    """``forward``: images [N, in_channels, H, W] -> logits [N, num_classes]; ``features``: -> [N, 64]."""

    feature_dim = 64
    head_name = "linear"

    def __init__(self, depth: int, head: nn.Module, in_channels: int = 3) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._layer(16, 16, blocks, stride=1)
        self.layer2 = self._layer(16, 32, blocks, stride=2)
        self.layer3 = self._layer(32, 64, blocks, stride=2)
        self.linear = head
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _layer(in_planes: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(in_planes, planes, stride)
        return nn.Sequential(first, *(BasicBlock(planes, planes, 1) for _ in range(blocks - 1)))

    def features(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        return out.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.linear(self.features(x)))
