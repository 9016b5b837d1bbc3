"""ImbSAM: SAM for the tail classes alone, plain descent for the head.

Zhou, Qu, Xu, Shen, "ImbSAM: A Closer Look at Sharpness-Aware Minimization in Class-Imbalanced Recognition", ICCV 2023::

    g_head = grad (1/N) sum over head images of l_i(w)
    g_t    = grad (2/N) sum over tail images of l_i(w)         eps = rho * g_t / ||g_t||
    g_tail = grad (2/N) sum over tail images of l_i(w + eps)
    w      = base optimiser's step from w with g_head + g_tail
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor
from torch.optim import Optimizer

from saddlescape.counts import ClassCounts, tail_classes
from saddlescape.errors import InputError
from saddlescape.optim.class_labels import PerClass
from saddlescape.optim.split_sam import SplitSAM
from saddlescape.optim.wrapper import WrapperOptions


class ImbSAM(SplitSAM):
    """ImbSAM around any torch optimiser: two forward passes, three backward passes.

    ``step(closure, targets=labels)``: the closure returns the **vector of per-sample losses [N]**, see
    :class:`~saddlescape.optim.split.SplitOptimizer`; it takes no argument. A batch without a tail image is the base
    optimiser's step; a batch of tail images alone is a SAM step on ``tail_weight`` times its loss.

    Args:
        base_optimizer, class_counts; options: as for :class:`~saddlescape.optim.SplitOptimizer`.
        rho: radius; the authors use 0.05. At 0 what is left is the base optimiser on the loss with ``tail_weight``.
        threshold: classes with fewer images are tail. None: fewer than 20, the authors' choice on CIFAR-100-LT, where
            that gives some classes and not all; else the smallest third (``saddlescape.counts``).
        tail_weight: of tail losses, in both passes. The authors' code has 2, which re-weights besides; 1 does not.

    Attributes: ``tail`` is the mask [C] of the tail classes; ``grad_norm`` is the last ``||g_t||``.

    Deviations from the authors' code: 1. 1e-12 instead of 1e-16 is added to the norm; 2. weights are restored from a
    copy, there by subtracting eps; 3. the running statistics of the second pass are not kept unless
    ``freeze_bn_stats=False``; 4. a batch without tail images is one pass, there it makes three with an eps of 0.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        class_counts: ClassCounts,
        rho: float | Tensor = 0.05,
        *,
        threshold: float | None = None,
        tail_weight: float = 2.0,
        **options: Unpack[WrapperOptions],
    ) -> None:
        super().__init__(base_optimizer, class_counts, rho, **options)
        if not 0 < tail_weight < float("inf"):
            raise InputError(f"ImbSAM: tail_weight must be above 0 and finite, got {tail_weight!r}")
        self.tail = tail_classes(self.class_counts, threshold, "ImbSAM")
        weighted = tail_weight * self.tail.to(torch.float64)
        self.plain, self.sharp = PerClass(~self.tail), [PerClass(weighted)]
        self.whole = PerClass(~self.tail + weighted)
