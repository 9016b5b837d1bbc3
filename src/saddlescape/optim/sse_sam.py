"""SSE-SAM: head and tail climb apart, each by its own gradient and radius; late in training the head climbs no more.

Lyu, Xu, Yang, Lyu, Huang, "SSE-SAM: Balancing Head and Tail Classes Gradually through Stage-Wise SAM", AAAI 2025::

    g_h = grad (1/N) sum over head images of l_i(w)            eps_h = rho_head * g_h / ||g_h||
    g_t = grad (1/N) sum over tail images of l_i(w)            eps_t = rho_tail * g_t / ||g_t||
    w   = base optimiser's step from w with
          grad (1/N) sum_head l_i(w + eps_h) + grad (1/N) sum_tail l_i(w + eps_t)

After a share ``gamma`` of the training rho_head is 0: from then on it is ImbSAM without its re-weighting.
"""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from saddlescape.counts import ClassCounts, tail_classes
from saddlescape.errors import InputError
from saddlescape.optim.class_labels import PerClass
from saddlescape.optim.split import SplitClosure
from saddlescape.optim.split_sam import SplitSAM
from saddlescape.optim.wrapper import WrapperOptions

MANY_SHOT = 100


class SSESAM(SplitSAM):
    """SSE-SAM around any torch optimiser: three forward passes and four backward passes, two and three when the head
    climbs no more.

    ``step(closure, targets=labels)``: the closure returns the **vector of per-sample losses [N]**, see
    :class:`~saddlescape.optim.split.SplitOptimizer`; it takes no argument.

    Args:
        base_optimizer, class_counts; options: as for :class:`~saddlescape.optim.SplitOptimizer`.
        rho: radius of the tail, kept as ``group["rho"]``. The authors use 0.10 on CIFAR-100-LT.
        head_ratio: radius of the head in units of ``rho``, so that a schedule moves both; the authors' 0.05 / 0.10.
            0 makes the head descend at ``w`` from the first step; a loop of its own may set the attribute.
        total_steps: length of the training in steps; then the head stops climbing after ``gamma * total_steps`` of
            them. None: never by itself.
        gamma: see ``total_steps``; the authors use 0.70.
        threshold: classes with fewer images are tail. None: fewer than 100, the authors' choice on CIFAR-100-LT at
            imbalance 100, where that gives some classes and not all; else the smallest third (``saddlescape.counts``).

    Attributes: ``tail`` is the mask [C] of the tail classes; ``steps`` how many have been made, part of the state
    dict; ``grad_norm`` is the last ``||g_t||`` (``||g_h||`` in a batch without tail images).

    Deviations from the authors' code: 1. one forward pass at ``w`` gives both gradients, there it is run for each;
    2. the head's end is counted in steps, there in epochs; 3. the numbered deviations of ImbSAM.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        class_counts: ClassCounts,
        rho: float | Tensor = 0.1,
        *,
        head_ratio: float = 0.5,
        total_steps: int | None = None,
        gamma: float = 0.7,
        threshold: float | None = None,
        **options: Unpack[WrapperOptions],
    ) -> None:
        super().__init__(base_optimizer, class_counts, rho, **options)
        if not 0 <= head_ratio < float("inf"):
            raise InputError(f"SSESAM: head_ratio must be at least 0 and finite, got {head_ratio!r}")
        if not 0 <= gamma <= 1:
            raise InputError(f"SSESAM: gamma is a share of the training, from 0 to 1, got {gamma!r}")
        if total_steps is not None and total_steps < 1:
            raise InputError(f"SSESAM: total_steps must be at least 1, got {total_steps!r}")
        self.head_ratio, self.total_steps, self.gamma = head_ratio, total_steps, gamma
        self.steps = 0
        self.tail = tail_classes(self.class_counts, threshold, "SSESAM", usual=MANY_SHOT)
        self.plain = PerClass(torch.zeros_like(self.class_counts))
        self.sharp = [PerClass(~self.tail), PerClass(self.tail)]
        self.whole = PerClass(torch.ones_like(self.class_counts))

    def _factors(self) -> list[float]:
        over = self.total_steps is not None and self.steps >= self.gamma * self.total_steps
        return [0.0 if over else self.head_ratio, 1.0]

    def _split_step(self, closure: SplitClosure, labels: Tensor, scaler: GradScaler | None) -> Tensor:
        value = super()._split_step(closure, labels, scaler)
        self.steps += 1
        return value

    def _extra_state(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def _load_extra_state(self, extra: dict[str, Any]) -> None:
        self.steps = extra["steps"]
