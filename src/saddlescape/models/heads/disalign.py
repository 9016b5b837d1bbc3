"""DisAlign as published and as distributed: Zhang et al., "Distribution Alignment: A Unified Framework for Long-tail
Visual Recognition", CVPR 2021, equations 4 to 6; copies of cvpods."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saddlescape.models.heads.linear import LinearBased


class DisAlignHead(LinearBased):
    """z' = sigma (alpha * z + beta) + (1 - sigma) z, with z = W h + b and sigma = sigmoid(v.h + v0) for each image.

    [N, d] -> [N, C]. The second stage trains alpha, beta and sigma and freezes the linear layer.
    Parameters: ``linear.*``, ``alpha`` [C] (ones), ``beta`` [C] (zeros), ``confidence.weight`` [1, d] and
    ``confidence.bias`` [1] (a linear layer's own initialisation). At alpha = 1, beta = 0 it is the linear head exactly.

    Deviations from the paper: none known. The classification code that is in circulation computes something else:
    ``DisAlignCvpodsHead``.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes)
        self.alpha = nn.Parameter(torch.ones(num_classes))
        self.beta = nn.Parameter(torch.zeros(num_classes))
        self.confidence = nn.Linear(in_features, 1)

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        # sigma (alpha z + beta) + (1 - sigma) z, in the form that is z to the last bit at alpha = 1 and beta = 0.
        return z + self.confidence(x).sigmoid() * ((self.alpha - 1) * z + self.beta)


class DisAlignCvpodsHead(DisAlignHead):
    """z' = (1 + sigma * alpha) z + sigma * beta: the classification layer in copies of cvpods, not the paper's formula.

    Parameters as in ``DisAlignHead``, but ``confidence.weight`` is filled with 0.1.

    Because alpha starts at 1 it starts as (1 + sigma) z: the same predictions as the linear head, larger logits. The
    paper's form is reached at alpha - 1, so the two differ in where training begins and in what weight decay pulls to.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes)
        nn.init.constant_(self.confidence.weight, 0.1)

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        sigma = self.confidence(x).sigmoid()
        return (1 + sigma * self.alpha) * z + sigma * self.beta
