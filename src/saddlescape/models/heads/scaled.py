"""Learnable weight scaling (LWS): Kang et al., "Decoupling Representation and Classifier", ICLR 2020, section 4.4.

Also the classifier of MiSLAS's second stage (Zhong et al., CVPR 2021), which trains the linear layer along with it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saddlescape.models.heads.linear import LinearBased


class ScaledHead(LinearBased):
    """z = s * (W h + b): a linear classifier and one factor per class, [N, d] -> [N, C].

    The factor multiplies the bias as well, as in both published codes; the LWS paper scales W alone and has no bias.
    Parameters: ``linear.weight`` [C, d], ``linear.bias`` [C], ``scale`` [C], ones at first.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes)
        self.scale = nn.Parameter(torch.ones(num_classes))

    def linear_map(self) -> tuple[Tensor, Tensor]:
        return self.scale[:, None] * self.linear.weight, self.scale * self.linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.linear(x)
