"""Momentum-SAM: SAM's look around for the price of one pass, with the momentum in place of the first gradient.

Becker, Altrock, Risse, "Momentum-SAM: Sharpness Aware Minimization without Computational Overhead", NeurIPS 2025::

    v is the base optimiser's momentum (v <- mu v + g; the step is w <- w - lr v)
    g = grad L(w - rho * v / (||v|| + 1e-12))
    w = base optimiser's step from w with g

The sign is the authors': with v close to the gradient the pass runs *downhill* of w, ahead on the way the weights are
going. Along an eigenvector of the Hessian with eigenvalue lambda the gradient is multiplied by about
1 - rho * lambda / ||v||: above 1 for every negative lambda, whatever rho.
"""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from saddlescape.errors import InputError
from saddlescape.optim.perturb import NORM_EPS, global_norm, move
from saddlescape.optim.wrapper import Closure, WrappedOptimizer, WrapperOptions

MOMENTA = ("momentum_buffer", "exp_avg")  # SGD, RMSprop; Adam and its kin


class MomentumSAM(WrappedOptimizer):
    """Momentum-SAM around an optimiser with momentum (SGD with ``momentum``, Adam, AdamW ...).

    ``step(closure)`` runs the closure **once**, at the perturbed weights, and returns its loss there: the loss at
    ``w`` is never computed. The very first step has no momentum yet and is the base optimiser's. Two-call form:
    ``ascend()`` *before* the forward pass, ``descend()`` after the backward pass. Between steps, and after an
    exception, the weights are ``w`` bit for bit. Running statistics are those of the one pass.

    Args:
        base_optimizer: a built optimiser that keeps a momentum.
        rho: radius; about fifteen times SAM's (the authors: 3 against 0.2). 0 is the base optimiser, bit for bit.
        options: clip_grad_norm, as for :class:`SAM`; model and freeze_bn_stats change nothing, there is one pass.

    Attributes: ``grad_norm`` is the last ``||v||``, a 0-dim tensor. Raises InputError for a base without momentum.

    Deviations from the authors' code: 1. the weights at home are ``w`` and are restored exactly, there the stored
    weights are the perturbed ones and are moved back for evaluation; 2. weight decay is that of the base optimiser
    at ``w``, there it acts on the perturbed weights (SGD) or follows the step (AdamW); 3. any number of
    parameter groups, with one norm.
    """

    def __init__(
        self, base_optimizer: Optimizer, rho: float | Tensor = 1.0, **options: Unpack[WrapperOptions]
    ) -> None:
        super().__init__(base_optimizer, rho, **options)
        if not any(group.get("momentum") or group.get("betas") for group in self.param_groups):
            raise InputError(
                f"MomentumSAM: {type(base_optimizer).__name__} here keeps no momentum; "
                "give the base optimiser one, e.g. momentum=0.9"
            )

    def _step(self, closure: Closure, scaler: GradScaler | None) -> Any:
        with self._away():
            self._ascend(scaler)
            loss = self._run(closure)
        self._descend(scaler)
        return loss

    @torch.no_grad()
    def _ascend(self, scaler: GradScaler | None) -> bool:
        groups = self._groups_at_work()
        pairs = [self._with_momentum(group["params"]) for group in groups]
        params = [param for chosen, _ in pairs for param in chosen]
        momenta = [momentum for _, found in pairs for momentum in found]
        if not params:
            return True
        self.grad_norm = global_norm(momenta)
        self._perturbation.save(params)
        for group, (chosen, found) in zip(groups, pairs, strict=True):
            move(chosen, found, -group["rho"] / (self.grad_norm + NORM_EPS))
        return True

    def _with_momentum(self, params: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        chosen, found = [], []
        for param in params:
            state = self.state.get(param, {})
            momentum = next((state[key] for key in MOMENTA if state.get(key) is not None), None)
            if momentum is not None:
                chosen.append(param)
                found.append(momentum)
        return chosen, found
