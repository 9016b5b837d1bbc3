"""Perturbed gradient descent (PGD): a random kick where the gradient is small, to leave saddle points.

Jin, Ge, Netrapalli, Kakade, Jordan, "How to Escape Saddle Points Efficiently", ICML 2017, Algorithm 2::

    if ||grad f(x)|| <= g_thr and t - t_noise > t_thr:
        t_noise <- t;  x <- x + xi                    xi uniform in a ball of radius r
    x <- x - eta * grad f(x)

Deviations from it, for the gradients of mini-batches: 1. kicks come by the clock alone, because the norm of a
mini-batch's gradient never passes the test; 2. after the step; 3. the algorithm ends after a kick that has not lowered
the loss enough, here training goes on.
"""

from __future__ import annotations

from typing import Any, Unpack

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from saddlescape.errors import InputError
from saddlescape.optim.perturb import global_norm, is_sharded, local, move, norms
from saddlescape.optim.wrapper import Closure, WrappedOptimizer, WrapperOptions


class PerturbedGD(WrappedOptimizer):
    """A base optimiser whose weights are kicked after every ``t_thr`` steps, in one pass a step.

    ``step()`` without a closure works too, as for any torch optimiser.

    Args:
        base_optimizer: makes the descent step; the paper's is plain SGD with ``lr = eta``.
        radius: of the ball from which kicks are drawn uniformly, over all parameters together. Kept as
            ``group["rho"]``; groups with 0 are not kicked.
        t_thr: number of steps between kicks.
        seed: kick number t is drawn from (seed, t) alone: it does not disturb other random numbers, is the same on
            every rank of a DDP group, and after a resume.
        options: clip_grad_norm, as for :class:`SAM`; model and freeze_bn_stats change nothing, there is one pass.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        radius: float | Tensor,
        *,
        t_thr: int,
        seed: int = 0,
        **options: Unpack[WrapperOptions],
    ) -> None:
        super().__init__(base_optimizer, radius, **options)
        if t_thr < 1:
            raise InputError(f"PerturbedGD: t_thr must be at least 1 step, got {t_thr!r}")
        self.t_thr, self.seed = t_thr, seed
        self.t = self.t_noise = 0

    def _finish(self, scaler: GradScaler | None) -> None:
        self._begun.yes = False
        self._descend(scaler)
        self._kick_by_the_clock()

    def _step(self, closure: Closure, scaler: GradScaler | None) -> Any:
        loss = super()._step(closure, scaler)
        self._kick_by_the_clock()
        return loss

    def _kick_by_the_clock(self) -> None:
        self.t += 1
        if self.t - self.t_noise >= self.t_thr:
            self.t_noise = self.t
            self._kick()

    @torch.no_grad()
    def _kick(self) -> None:
        """Add a point drawn uniformly from the ball: ``r * u^(1/d) * n / ||n||``, n Gaussian, u uniform in [0, 1)."""
        params = [p for group in self._groups_at_work() for p in group["params"] if p.requires_grad]
        if not params:
            return
        if any(is_sharded(param) for param in params):
            raise InputError("PerturbedGD: sharded parameters (FSDP) are not supported; use DistributedDataParallel")
        seed = (self.seed * 0x9E3779B97F4A7C15 + self.t) % 2**63
        generators = {device: torch.Generator(device).manual_seed(seed) for device in {p.device for p in params}}
        noise: dict[int, Tensor] = {}
        for param in params:
            flat = local(param)
            noise[id(param)] = torch.randn(
                flat.shape, generator=generators[flat.device], device=flat.device, dtype=flat.dtype
            )
        dim = sum(tensor.numel() for tensor in noise.values())
        uniform = torch.rand((), generator=torch.Generator().manual_seed(seed ^ 1), dtype=torch.float64).item()
        scale = uniform ** (1 / dim) / global_norm(norms(list(noise.values())))
        for group in self._groups_at_work():
            chosen = [p for p in group["params"] if p.requires_grad]
            move(chosen, [noise[id(p)] for p in chosen], group["rho"] * scale)

    def _extra_state(self) -> dict[str, Any]:
        return {"t": self.t, "t_noise": self.t_noise}

    def _load_extra_state(self, extra: dict[str, Any]) -> None:
        self.t, self.t_noise = extra["t"], extra["t_noise"]
