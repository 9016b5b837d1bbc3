"""The cosine ("normed") classifier of LDAM: Cao et al., NeurIPS 2019."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CosineHead(nn.Module):
    """Cosines between features and class vectors: normalize(h) @ normalize(W), in [-1, 1]; no bias, no scale.

    ``weight`` is [d, C] (the transpose of a linear layer's), as in the LDAM-DRW code's ``NormedLinear``: columns drawn
    uniformly from [-1, 1] and scaled to unit length. The scale s belongs to the loss (``LDAMLoss``).

    Features of length zero give zero logits. Computed in float32 at least, also under autocast: the loss multiplies
    the cosines by 30, which would make the rounding of half precision visible.

    Deviations from that code: columns are scaled to unit length directly, there by ``renorm`` to 1e-5 and times 1e5.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.in_features, self.num_classes = in_features, num_classes
        self.weight = nn.Parameter(torch.empty(in_features, num_classes))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        self.weight.uniform_(-1, 1)
        self.weight.div_(self.weight.norm(dim=0, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
            return F.normalize(x.to(dtype), dim=1) @ F.normalize(self.weight.to(dtype), dim=0)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, num_classes={self.num_classes}"
