"""Learnable weight scaling (LWS): Kang et al., "Decoupling Representation and Classifier", ICLR 2020, section 4.4.

Also the classifier of MiSLAS's second stage (Zhong et al., CVPR 2021), which trains the linear layer along with it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saddlescape.models.heads.linear import copy_linear_map


class ScaledHead(nn.Module):
    """z = s * (W h + b): a linear classifier and one factor per class, [N, d] -> [N, C].

    The factor multiplies the bias as well, as in both published codes; the LWS paper scales W alone and has no bias.
    Parameters: ``linear.weight`` [C, d], ``linear.bias`` [C], ``scale`` [C], ones at first.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, num_classes)
        self.scale = nn.Parameter(torch.ones(num_classes))

    @torch.no_grad()
    def adopt(self, previous: nn.Module) -> None:
        """Take W and b of a linear head and reset s to ones: the logits stay as they were.

        Raises:
            InputError: ``previous`` is no linear map of the features.
        """
        copy_linear_map(self.linear, previous)
        self.scale.fill_(1.0)

    def linear_map(self) -> tuple[Tensor, Tensor]:
        return self.scale[:, None] * self.linear.weight, self.scale * self.linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.linear(x)
