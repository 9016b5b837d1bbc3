"""No network before the head: for features that somebody else's network, or nobody's, has made."""

from __future__ import annotations

from torch import Tensor, nn

from saddlescape.models.network import Network


class Identity(Network):
    """``forward``: features [N, d, 1, 1] or [N, d] -> logits [N, C]; ``features``: -> [N, d], as they are."""

    head_name = "linear"

    def __init__(self, head: nn.Module, in_channels: int) -> None:
        super().__init__()
        self.feature_dim = in_channels
        self.linear = head

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)
