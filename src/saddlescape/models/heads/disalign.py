"""DisAlign as published: Zhang et al., "Distribution Alignment: A Unified Framework for Long-tail Visual Recognition",
CVPR 2021, equations 4 to 6."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saddlescape.models.heads.linear import copy_linear_map


class DisAlignHead(nn.Module):
    """z' = sigma (alpha * z + beta) + (1 - sigma) z, with z = W h + b and sigma = sigmoid(v.h + v0) for each image.

    [N, d] -> [N, C]. The second stage trains alpha, beta and sigma and freezes the linear layer.
    Parameters: ``linear.*``, ``alpha`` [C] (ones), ``beta`` [C] (zeros), ``confidence.weight`` [1, d] and
    ``confidence.bias`` [1] (a linear layer's own initialisation). At alpha = 1, beta = 0 it is the linear head exactly.

    Deviations from the paper: none known. The classification code that is in circulation computes something else:
    ``DisAlignCvpodsHead``.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, num_classes)
        self.alpha = nn.Parameter(torch.ones(num_classes))
        self.beta = nn.Parameter(torch.zeros(num_classes))
        self.confidence = nn.Linear(in_features, 1)

    @torch.no_grad()
    def adopt(self, previous: nn.Module) -> None:
        """Take W and b of a linear head; alpha and beta start anew: the logits stay as they were.

        Raises:
            InputError: ``previous`` is no linear map of the features.
        """
        copy_linear_map(self.linear, previous)
        self.alpha.fill_(1.0)
        self.beta.fill_(0.0)

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        # sigma (alpha z + beta) + (1 - sigma) z, in the form that is z to the last bit at alpha = 1 and beta = 0.
        return z + self.confidence(x).sigmoid() * ((self.alpha - 1) * z + self.beta)
