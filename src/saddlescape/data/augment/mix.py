"""Mix two batches: mixup (Zhang et al., ICLR 2018) and CutMix (Yun et al., ICCV 2019), and their soft labels."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from saddlescape.errors import InputError


def draw_lambda(alpha: float, generator: torch.Generator, beta: float | None = None) -> float:
    """One draw from Beta(alpha, beta), beta = alpha unless given."""
    if alpha <= 0 or (beta is not None and beta <= 0):
        raise InputError(f"mixing needs alpha > 0, got {alpha}: leave mixing out to switch it off")
    seed = int(torch.randint(0, 2**62, (), generator=generator))  # torch has no Beta that takes a generator
    return float(np.random.default_rng(seed).beta(alpha, alpha if beta is None else beta))


def mixup(first: Tensor, second: Tensor, lam: float) -> Tensor:
    """``lam * first + (1 - lam) * second``; for inputs [N, C, H, W] and for soft labels [N, K] alike."""
    return lam * first + (1 - lam) * second


def cutmix_box(
    height: int, width: int, lam: float, generator: torch.Generator, rounding: Literal["floor", "ceil"] = "floor"
) -> tuple[int, int, int, int]:
    """Top, bottom, left, right (half open) of a box of about ``1 - lam`` of the area around an even random centre.

    The box is cut off at the border. Its sides are rounded down, as in the CutMix authors' code, or up, as GLMC has
    it, and then ``side // 2`` pixels are taken on either side of the centre.
    """
    round_ = math.floor if rounding == "floor" else math.ceil
    share = math.sqrt(1 - lam)
    half_height, half_width = round_(height * share) // 2, round_(width * share) // 2
    row = int(torch.randint(0, height, (), generator=generator))
    column = int(torch.randint(0, width, (), generator=generator))
    return (
        max(row - half_height, 0),
        min(row + half_height, height),
        max(column - half_width, 0),
        min(column + half_width, width),
    )


def cutmix(first: Tensor, second: Tensor, box: tuple[int, int, int, int]) -> tuple[Tensor, float]:
    """Paste ``box`` of ``second`` into a copy of ``first`` [N, C, H, W]; also the share of area that is still first's.

    That share is the corrected lambda of the CutMix paper. GLMC weights labels by the uncorrected one.
    """
    top, bottom, left, right = box
    mixed = first.clone()
    mixed[..., top:bottom, left:right] = second[..., top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (first.shape[-2] * first.shape[-1])


def one_hot(targets: Tensor, num_classes: int) -> Tensor:
    """float32 [N, num_classes] of hard labels int64 [N]; mix two of them with :func:`mixup`."""
    return torch.nn.functional.one_hot(targets, num_classes).float()
