"""Heads around a linear classifier, and what linear map a trained head is."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from saddlescape.errors import InputError


def linear_map(head: nn.Module, weight_like: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Weight [C, d] and bias [C] of a head whose logits are W h + b, detached.

    That is a linear layer (without bias: b = 0), or a head that says what linear map it is (method ``linear_map``).

    Args:
        head: of an earlier stage.
        weight_like: a weight that W has to be able to replace.

    Raises:
        InputError: a head that is not a linear map of the features (cosine, DisAlign, nearest mean); other shapes than
            those of ``weight_like``.
    """
    own = getattr(head, "linear_map", None)
    if isinstance(head, nn.Linear):
        weight, bias = head.weight, head.bias
    elif callable(own):
        weight, bias = own()
    else:
        raise InputError(
            f"{type(head).__name__} is not a linear map W h + b, which this stage's head builds upon: train the stage "
            "before with the linear head (head='linear'), or start this one afresh (reset_head=true)"
        )
    if weight_like is not None and weight.shape != weight_like.shape:
        wanted, got = list(weight_like.shape), list(weight.shape)
        raise InputError(f"the head before has weights {got} (classes, features) but this one needs {wanted}")
    weight = weight.detach()
    return weight, weight.new_zeros(len(weight)) if bias is None else bias.detach()


@torch.no_grad()
def copy_linear_map(layer: nn.Linear, previous: nn.Module) -> None:
    """Give ``layer`` the weight and bias of ``previous``; see :func:`linear_map`."""
    weight, bias = linear_map(previous, layer.weight)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)


class LinearBased(nn.Module):
    """Base of the heads around a linear classifier, the module ``linear``: [N, d] -> [N, C]."""

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, num_classes)

    def adopt(self, previous: nn.Module) -> None:
        """Take W and b of the head of the stage before; whatever else a head has stays as it is.

        Raises:
            InputError: ``previous`` is not a linear map of the features.
        """
        copy_linear_map(self.linear, previous)
