"""A small convolutional network for 8x8 images (the embedded digits), for demos and tests."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from saddlescape.models.network import Network


class SmallCNN(Network):
    """Three 3x3 convolutions with batch normalisation, 16, 32 and 64 wide; 24,058 parameters for 10 grey digits.

    ``forward``: images [N, in_channels, H, W], H and W from 2 up -> logits [N, C]; ``features``: -> [N, 64].
    """

    head_name = "linear"
    feature_dim = 64

    def __init__(self, head: nn.Module, in_channels: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(64)
        self.linear = head
        for module in (self.conv1, self.conv2, self.conv3, head):
            if isinstance(module, nn.Conv2d | nn.Linear):  # another head keeps its own initialisation
                nn.init.kaiming_normal_(module.weight)

    def features(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(F.max_pool2d(x, 2))))
        return x.mean(dim=(2, 3))
