"""A linear classifier with a projection for a contrastive loss beside it (ProCo: Du et al., TPAMI 2024), and with class
prototypes besides (BCL: Zhu et al., CVPR 2022, section 3.4)."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from saddlescape.models.heads.linear import LinearBased


def projection_mlp(in_features: int) -> nn.Sequential:
    """Linear, batch norm, ReLU, linear: d -> max(d, 512) -> 128, or -> 1024 from 2048 features (ResNet-50) on."""
    hidden, width = max(in_features, 512), 1024 if in_features >= 2048 else 128
    return nn.Sequential(nn.Linear(in_features, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, width))


class ProjectionHead(LinearBased):
    """``forward`` [N, d] -> [N, C]: logits of ``linear``; ``project`` [N, d] -> [N, p]: points of the unit sphere.

    p (``projection_dim``) is 128, or 1024 from 2048 features on. Sizes as in the published ProCo and BCL codes; as
    in ProCo's CIFAR code the classifier keeps torch's own initialisation, smaller than the networks' Kaiming.

    Deviations from those codes: on ImageNet-LT and iNaturalist they put a cosine classifier with a factor of 30 where
    this head has a linear one (their CIFAR code has a linear one too).
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes)
        self.projection = projection_mlp(in_features)
        self.projection_dim = cast(nn.Linear, self.projection[-1]).out_features

    def linear_map(self) -> tuple[Tensor, Tensor]:
        return self.linear.weight, self.linear.bias

    def project(self, h: Tensor) -> Tensor:
        """Features [N, d] -> [N, p] of unit length. In training mode at least two rows: there is a batch norm."""
        return F.normalize(self.projection(h), dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.linear(x))


class PrototypeHead(ProjectionHead):
    """``ProjectionHead`` and a second network of the same form that turns the classifier's weights into prototypes."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes)
        self.prototype = projection_mlp(in_features)

    def prototypes(self) -> Tensor:
        """One point of the unit sphere per class, [C, p]; gradients reach the classifier's weights too."""
        return F.normalize(self.prototype(self.linear.weight), dim=1)
