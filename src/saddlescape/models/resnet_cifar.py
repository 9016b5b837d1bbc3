"""ResNet-20/32/44/56 for 32x32 images: He et al., CVPR 2016, section 4.2, with the parameter-free option-A shortcut.

Names, order, shapes and initialisation of the parameters are those of the LDAM-DRW code's ``resnet_cifar.py``
(methods: conv1, bn1, layer1..3, linear), so that checkpoints can be exchanged. ``width=64`` is the 64-128-256 wide
network that GLMC (Du et al., CVPR 2023) and SURE (CVPR 2024) call ResNet-32.

Deviations from that code:

1. the head can be any module (``saddlescape.models.heads``); it is reached as ``model.head`` and stored as ``linear``;
2. ``features(x)`` gives the 64-d vector that the head sees;
3. the network takes any image size from 8x8 up, because it pools globally;
4. of the heads the linear one and GLMC's are initialised along with the network, as in the two codes; any other head
   keeps the initialisation that it came with.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from saddlescape.models.heads import TwoBranchHead
from saddlescape.models.network import Network


class OptionAShortcut(nn.Module):
    """Halve the resolution by taking every second pixel; pad the channels with zeros on both sides."""

    def __init__(self, in_planes: int, planes: int) -> None:
        super().__init__()
        self.padding = (planes - in_planes) // 2

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))


class CifarBlock(nn.Module):
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


class ResNetCifar(Network):
    """``forward``: images [N, in_channels, H, W] -> logits [N, num_classes]; ``features``: -> [N, 4 width].

    Args:
        depth: 6 k + 2.
        head: maps features to logits.
        width: channels of the first of three stages.
    """

    head_name = "linear"

    def __init__(self, depth: int, head: nn.Module, in_channels: int = 3, width: int = 16) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        self.feature_dim = 4 * width
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._layer(width, width, blocks, stride=1)
        self.layer2 = self._layer(width, 2 * width, blocks, stride=2)
        self.layer3 = self._layer(2 * width, 4 * width, blocks, stride=2)
        self.linear = head
        initialised: list[nn.Conv2d | nn.Linear] = [
            module for module in self.modules() if isinstance(module, nn.Conv2d)
        ]
        if isinstance(head, nn.Linear | TwoBranchHead):
            initialised += [module for module in head.modules() if isinstance(module, nn.Linear)]
        for module in initialised:
            nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _layer(in_planes: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
        first = CifarBlock(in_planes, planes, stride)
        return nn.Sequential(first, *(CifarBlock(planes, planes, 1) for _ in range(blocks - 1)))

    def features(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        return out.mean(dim=(2, 3))
