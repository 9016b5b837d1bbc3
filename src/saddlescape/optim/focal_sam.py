"""Focal-SAM: every class is flattened, the rarer the more.

Li, Xu, Yang, Cao, Huang, "Focal-SAM: Focal Sharpness-Aware Minimization for Long-Tailed Classification", ICML 2025::

    k_c = lam * (1 - pi_c)^gamma                                 pi_c: share of class c in the training set
    g1  = grad (1/N) sum_i (1 - k_{y_i}) l_i(w)
    g2  = grad (1/N) sum_i k_{y_i} l_i(w)                        eps = rho * g2 / (||g2|| + 1e-12)
    g3  = grad (1/N) sum_i k_{y_i} l_i(w + eps)
    w   = base optimiser's step from w with g1 + g3

This descends the loss plus ``lam * sum_c (1 - pi_c)^gamma * (rise of class c's loss from w to w + eps)``.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor
from torch.optim import Optimizer

from saddlescape.counts import ClassCounts
from saddlescape.errors import InputError
from saddlescape.optim.class_labels import PerClass
from saddlescape.optim.split_sam import SplitSAM
from saddlescape.optim.wrapper import WrapperOptions


class FocalSAM(SplitSAM):
    """Focal-SAM around any torch optimiser: two forward passes, three backward passes, any number of classes.

    ``step(closure, targets=labels)``: the closure returns the **vector of per-sample losses [N]**, see
    :class:`~saddlescape.optim.split.SplitOptimizer`; it takes no argument. ``lam=1, gamma=0`` is SAM.

    Args:
        base_optimizer, class_counts; options: as for :class:`~saddlescape.optim.SplitOptimizer`.
        rho: radius. The defaults here are the authors' for CIFAR-10-LT; CIFAR-100-LT: rho 0.3, lam 0.8, gamma 3.2;
            ImageNet-LT: 0.1 (0.2 from 80 % of the training on), 0.8, 0.8; iNaturalist 2018: 0.2, 1.1, 2.0. All with
            the logit-adjusted loss.
        lam: weight of the sharpness, at least 0; above 1 the plain part of rare classes becomes negative, as meant.
        gamma: how strongly it leans to the rare classes, at least 0.

    Attributes: ``factors`` is k, float64 [C]; ``grad_norm`` is the last ``||g2||``.

    Deviations from the authors' code: 1. weights are restored unconditionally; 2. the running statistics of the
    second pass are not kept unless ``freeze_bn_stats=False``; 3. under a GradScaler the scale is updated once a step,
    there thrice.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        class_counts: ClassCounts,
        rho: float | Tensor = 0.2,
        *,
        lam: float = 0.5,
        gamma: float = 3.0,
        **options: Unpack[WrapperOptions],
    ) -> None:
        super().__init__(base_optimizer, class_counts, rho, **options)
        for name, value in (("lam", lam), ("gamma", gamma)):
            if not 0 <= value < float("inf"):
                raise InputError(f"FocalSAM: {name} must be at least 0 and finite, got {value!r}")
        share = self.class_counts / self.class_counts.sum()
        self.factors = lam * (1 - share) ** gamma
        self.plain, self.sharp = PerClass(1 - self.factors), [PerClass(self.factors)]
        self.whole = PerClass(torch.ones_like(self.factors))
