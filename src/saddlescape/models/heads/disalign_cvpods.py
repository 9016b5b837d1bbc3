"""DisAlign's classification layer as distributed in copies of cvpods: another formula than the paper's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saddlescape.models.heads.linear import copy_linear_map


class DisAlignCvpodsHead(nn.Module):
    """z' = (1 + sigma * alpha) z + sigma * beta, with z = W h + b and sigma = sigmoid(v.h + v0) for each image.

    [N, d] -> [N, C]. Parameters as in ``DisAlignHead``: ``linear.*``, ``alpha`` [C] (ones), ``beta`` [C] (zeros),
    ``confidence.weight`` [1, d] (filled with 0.1), ``confidence.bias`` [1] (a linear layer's own initialisation).

    Because alpha starts at 1 it starts as (1 + sigma) z: the same predictions as the linear head, larger logits. The
    paper's form is reached at alpha - 1, so the two differ in where training begins and in what weight decay pulls to.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, num_classes)
        self.alpha = nn.Parameter(torch.ones(num_classes))
        self.beta = nn.Parameter(torch.zeros(num_classes))
        self.confidence = nn.Linear(in_features, 1)
        nn.init.constant_(self.confidence.weight, 0.1)

    @torch.no_grad()
    def adopt(self, previous: nn.Module) -> None:
        """Take W and b of a linear head; alpha and beta start anew: same argmax, logits times 1 + sigma.

        Raises:
            InputError: ``previous`` is no linear map of the features.
        """
        copy_linear_map(self.linear, previous)
        self.alpha.fill_(1.0)
        self.beta.fill_(0.0)

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        sigma = self.confidence(x).sigmoid()
        return (1 + sigma * self.alpha) * z + sigma * self.beta
