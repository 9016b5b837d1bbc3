"""Adaptive sharpness-aware minimisation (ASAM): a radius that does not change when weights are rescaled.

Kwon, Kim, Park, Choi, "ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant Learning of Deep Neural
Networks", ICML 2021: ``eps = rho * T^2 g / ||T g||`` with a diagonal ``T`` that grows with the weights.
"""

from __future__ import annotations

from typing import Unpack

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from saddlescape.errors import InputError
from saddlescape.optim.sam import SAM
from saddlescape.optim.wrapper import WrapperOptions


class ASAM(SAM):
    """ASAM as its authors wrote it: ``T = |w| + eta`` for tensors called ``weight``, ``T = 1`` for the others.

    Two forms are in use. This one (SamsungLabs/ASAM, the default here): norm layers' scales count as weights, biases
    do not, ``eta`` keeps zero weights movable. The other (the ``adaptive`` flag of davda54/sam): ``T = |w|`` for all;
    it is ``ASAM(..., eta=0, scale_biases=True)``, the same as ``SAM(..., adaptive=True)``.

    Args:
        base_optimizer, sync_ascent; options: model, freeze_bn_stats, clip_grad_norm: as for :class:`SAM`.
        rho: radius, about ten times SAM's: the authors use 0.5 on CIFAR-10, 1.0 on CIFAR-100.
        eta: added to ``|w|``; at least 0.
        scale_biases: whether tensors not called weight are scaled too. False needs ``model``, which has the names.

    Deviations from the authors' code: 1. 1e-12 instead of 1e-16 is added to the norm; 2. all those of :class:`SAM`.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        rho: float | Tensor = 0.5,
        *,
        eta: float = 0.01,
        scale_biases: bool = False,
        sync_ascent: bool = True,
        **options: Unpack[WrapperOptions],
    ) -> None:
        if not eta >= 0:
            raise InputError(f"ASAM: eta must be at least 0, got {eta!r}")
        if not scale_biases and options.get("model") is None:
            raise InputError(
                "ASAM: needs model= to tell weights from biases by name; or scale_biases=True to scale all tensors"
            )
        super().__init__(base_optimizer, rho, adaptive=True, sync_ascent=sync_ascent, **options)
        self.eta = eta
        self.scale_biases = scale_biases
        self._unscaled: set[int] = set()

    def _ascend(self, scaler: GradScaler | None) -> bool:
        if not self.scale_biases:  # names are asked for anew each step: a model may change
            named = self.model.named_parameters()  # type: ignore[union-attr]
            self._unscaled = {id(param) for name, param in named if "weight" not in name}
        return super()._ascend(scaler)

    def _scaling(self, weights: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        scaling = list(torch._foreach_abs(weights))
        torch._foreach_add_(scaling, self.eta)
        for scale, param in zip(scaling, params, strict=True):
            if id(param) in self._unscaled:
                scale.fill_(1.0)
        return scaling
