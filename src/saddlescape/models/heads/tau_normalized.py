"""tau-normalisation: Kang et al., "Decoupling Representation and Classifier", ICLR 2020, section 4.3."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saddlescape.errors import InputError
from saddlescape.models.heads.linear import linear_map


def tau_normalized(weight: Tensor, tau: float | Tensor) -> Tensor:
    """W_c / ||W_c||_2^tau for each row of ``weight`` [C, d]; tau = 0 is W, tau = 1 has rows of unit length.

    A row of zeros stays one.
    """
    length = torch.linalg.vector_norm(weight, dim=1, keepdim=True)
    return weight / torch.where(length > 0, length, 1.0) ** tau


class TauNormalizedHead(nn.Module):
    """z_c = W_c.h / ||W_c||^tau without bias, [N, d] -> [N, C]. Nothing is trained; tau is chosen on validation data.

    ``weight`` [C, d] is the weight as trained, so that tau can be changed at any time; ``tau`` is a buffer, 1 at first.
    """

    tau: Tensor

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.Linear(in_features, num_classes, bias=False).weight.detach())
        self.register_buffer("tau", torch.tensor(1.0))

    @torch.no_grad()
    def adopt(self, previous: nn.Module) -> None:
        """Take W of a linear head and drop its bias; tau stays as it is.

        Raises:
            InputError: ``previous`` is not a linear map of the features.
        """
        self.weight.copy_(linear_map(previous, self.weight)[0])

    @torch.no_grad()
    def set_tau(self, tau: float) -> None:
        """Normalise with this exponent from now on; the published grid is 0, 0.1, ..., 2.

        Raises:
            InputError: a negative or infinite tau.
        """
        if not 0 <= tau < float("inf"):
            raise InputError(f"tau is {tau}; it must be 0 or more, usually up to 2")
        self.tau.fill_(tau)

    def linear_map(self) -> tuple[Tensor, Tensor]:
        return tau_normalized(self.weight, self.tau), self.weight.new_zeros(len(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, tau_normalized(self.weight, self.tau))
