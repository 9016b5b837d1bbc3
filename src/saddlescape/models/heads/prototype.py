"""The contrastive head with class prototypes of BCL: Zhu et al., "Balanced Contrastive Learning for Long-Tailed Visual
Recognition", CVPR 2022, section 3.4."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from saddlescape.models.heads.projection import ProjectionHead, projection_mlp


class PrototypeHead(ProjectionHead):
    """``ProjectionHead`` and a second network of the same form that turns the classifier's weights into prototypes."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes)
        self.prototype = projection_mlp(in_features)

    def prototypes(self) -> Tensor:
        """One point of the unit sphere per class, [C, p]; gradients reach the classifier's weights too."""
        return F.normalize(self.prototype(self.linear.weight), dim=1)
