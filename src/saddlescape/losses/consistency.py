"""GLMC's consistency of a global and a local mixture: Du et al., CVPR 2023; in the manner of SimSiam (Chen and He,
CVPR 2021)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from saddlescape.errors import InputError
from saddlescape.losses.base import Reduction


def consistency_loss(p_g: Tensor, q_l: Tensor, p_l: Tensor, q_g: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """-cos(p_g, sg(q_l)) - cos(p_l, sg(q_g)), from -2 (agreement) to 2; no gradient reaches the projections q.

    Args:
        p_g, q_g: prediction and projection of the global view (mixup), [N, d].
        q_l, p_l: projection and prediction of the local view (CutMix), [N, d].
        reduction: "mean" over the batch, "sum", or "none" for [N].

    Vectors of length zero count as orthogonal to everything. In float32 at least.

    Raises:
        InputError: shapes that differ, or an unknown reduction.
    """
    if len({p_g.shape, q_l.shape, p_l.shape, q_g.shape}) > 1 or p_g.ndim != 2:
        shapes = ", ".join(str(list(x.shape)) for x in (p_g, q_l, p_l, q_g))
        raise InputError(f"predictions and projections must all be [N, d] of one shape, got {shapes}")
    with torch.autocast(p_g.device.type, enabled=False):
        p_g, q_l, p_l, q_g = (x if x.dtype == torch.float64 else x.float() for x in (p_g, q_l, p_l, q_g))
        losses = -F.cosine_similarity(p_g, q_l.detach(), dim=1) - F.cosine_similarity(p_l, q_g.detach(), dim=1)
    if reduction == "none":
        return losses
    if reduction not in ("mean", "sum"):
        raise InputError(f"reduction is {reduction!r}; it must be 'mean', 'sum' or 'none'")
    return losses.mean() if reduction == "mean" else losses.sum()
