"""GLMC's two classifiers and its projection: Du et al., "Global and Local Mixture Consistency Cumulative Learning for
Long-tailed Visual Recognitions", CVPR 2023."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from saddlescape.models.heads.linear import copy_linear_map


class TwoBranchHead(nn.Module):
    """Two linear classifiers, ``fc`` (plain) and ``fc_cb`` (class-balanced), and two linear layers for consistency.

    ``forward`` [N, d] -> [N, C] gives the logits of ``fc_cb``, in training and in evaluation: they are what the method
    predicts with. ``branches`` gives both. ``projection`` [d -> p] and ``prediction`` [p -> p] are single linear
    layers, p = 128 for up to 256 features and 256 beyond, as in the published networks.

    Deviations from the GLMC code: ``projection`` and ``prediction`` are plain layers there wrapped in a sequence of
    one and called ``projection_head.0`` and ``contrast_head.0``.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        width = 128 if in_features <= 256 else 256
        self.fc = nn.Linear(in_features, num_classes)
        self.fc_cb = nn.Linear(in_features, num_classes)
        self.projection = nn.Linear(in_features, width)
        self.prediction = nn.Linear(width, width)

    @torch.no_grad()
    def adopt(self, previous: nn.Module) -> None:
        """Start both classifiers from a linear head: the logits stay as they were.

        Raises:
            InputError: ``previous`` is not a linear map of the features.
        """
        copy_linear_map(self.fc, previous)
        copy_linear_map(self.fc_cb, previous)

    def linear_map(self) -> tuple[Tensor, Tensor]:
        return self.fc_cb.weight, self.fc_cb.bias

    def branches(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Features [N, d] -> (plain logits [N, C], class-balanced logits [N, C])."""
        return self.fc(h), self.fc_cb(h)

    def project(self, h: Tensor) -> Tensor:
        """Features [N, d] -> q [N, p]."""
        return cast(Tensor, self.projection(h))

    def predict(self, q: Tensor) -> Tensor:
        """q [N, p] -> p [N, p], what has to agree with the other view's q."""
        return cast(Tensor, self.prediction(q))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.fc_cb(x))
