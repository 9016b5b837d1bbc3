"""Sharpness-aware minimisation (SAM).

Foret, Kleiner, Mobahi, Neyshabur, "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR 2021::

    g   = grad L(w)                      first pass
    eps = rho * g / (||g|| + 1e-12)      one norm over all parameters
    g'  = grad L(w + eps)                second pass, same batch
    w   = base optimiser's step from w with g'
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, Literal, Unpack

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim import Optimizer

from saddlescape.errors import InputError
from saddlescape.optim.layers import normalisation_parameters
from saddlescape.optim.perturb import (
    NORM_EPS,
    chunks,
    global_norm,
    local,
    move,
    norms,
    on_device,
    real,
    with_gradients,
)
from saddlescape.optim.wrapper import Closure, WrappedOptimizer, WrapperOptions


class SAM(WrappedOptimizer):
    """SAM around any torch optimiser; itself one, on the very groups and state of its base.

    ::

        optimizer = SAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), rho=0.05, model=model)

        def closure():
            optimizer.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            return loss

        loss = optimizer.step(closure)      # the loss at w, not at w + eps

    By hand::

        loss_fn(model(x), y).backward()
        if optimizer.ascend():              # False: no second pass needed (rho is 0, or the gradient overflowed)
            optimizer.zero_grad()
            loss_fn(model(x), y).backward()
        optimizer.descend()

    With fp16 and ``torch.amp.GradScaler``: scale the loss in the closure as usual and give the scaler to the step::

        scaler.scale(loss).backward()       # in the closure
        optimizer.step(closure, scaler=scaler)
        scaler.update()                     # once a step

    Both passes are unscaled. If either overflows, the whole step is skipped with weights and momentum as they were,
    and ``update`` backs off once. Clipping goes in by ``clip_grad_norm``. A trainer that insists on calling
    ``scaler.step(optimizer)`` itself may, after ``optimizer.ascend(scaler=scaler)``.
    Accumulation: the closure runs all micro-batches (``accumulated_closure`` writes it for you).

    Args:
        base_optimizer: a built optimiser.
        rho: radius. 0 is the base optimiser bit for bit, in one pass. Groups may have different ones; a group with
            ``rho`` 0 is left out of the ascent altogether, its gradient does not count in the norm.
        adaptive: scale by ``|w|`` (ASAM without its ``eta``, all tensors): ``eps = rho * w^2 g / ||w g||``.
            :class:`~saddlescape.optim.ASAM` is the form of ASAM's authors.
        model: the network. Only needed to find the layers with running statistics without a hook, and for
            ``sync_ascent=False`` and ``layers``. Give it when it is compiled.
        freeze_bn_stats: running statistics see the first pass only, as SAM's authors do; False lets both passes
            count, as the code of "Escaping Saddle Points" does.
        clip_grad_norm: clip g' to this global norm before the base step.
        sync_ascent: under DistributedDataParallel, whether the ascent uses the gradient of all ranks (True) or each
            rank's own (False: SAM's authors' way, less communication). The descent is always that of all ranks.
        layers: which layers climb: "all"; or "norm", the normalisation layers alone (SAM-ON: Mueller, Vlaar, Rolnick,
            Hein, "Normalization Layers Are All That Sharpness-Aware Minimization Needs", NeurIPS 2023). The norm of
            the gradient is that of these layers, all others stay at ``w``, the descent moves everything. With
            ``step(closure)`` the first pass computes no other weight gradients, unless ``model`` is in
            DistributedDataParallel or compiled, which count on them (a compiled network behind a closure is compiled
            once more for that pass).

    Attributes: ``grad_norm`` is the last ``||g||`` as a 0-dim tensor (None before the first), never copied to the
    host here; ``passes_per_step``; ``is_perturbed``.

    Weights come back bit for bit, also after an exception or an interrupt in the second pass, whichever parameters
    then have gradients. Memory beyond the base optimiser: one copy of the weights while they are away.

    Deviations from the widespread reference code (davda54/sam, which the paper's code uses):

    1. takes a built optimiser; 2. the closure is torch's (it zeroes the gradients) and the first pass is ours;
    3. weights are restored unconditionally, there only where the second pass left a gradient; 4. the copies are not
    in ``state``, so never in a checkpoint; 5. groups with ``rho`` 0 do not count in the norm.

    Raises:
        InputError: a bare ``step()``, a first pass that leaves no gradient at all, and as the base class.
    """

    def __init__(
        self,
        base_optimizer: Optimizer,
        rho: float | Tensor = 0.05,
        adaptive: bool = False,
        *,
        sync_ascent: bool = True,
        layers: Literal["all", "norm"] = "all",
        **options: Unpack[WrapperOptions],
    ) -> None:
        super().__init__(base_optimizer, rho, **options)
        self.adaptive = adaptive
        if not sync_ascent and not hasattr(self.model, "no_sync"):
            raise InputError(
                f"{type(self).__name__}: sync_ascent=False needs model=, wrapped in DistributedDataParallel"
            )
        self.sync_ascent = sync_ascent
        self.layers = layers
        if layers not in ("all", "norm"):
            raise InputError(f"{type(self).__name__}: layers must be 'all' or 'norm', got {layers!r}")
        if layers == "norm":
            self._climbing()  # there are some, or the error comes now

    @property
    def passes_per_step(self) -> int:
        """2, or 1 when ``rho`` is 0 everywhere."""
        return 2 if self._groups_at_work() else 1

    def _step(self, closure: Closure, scaler: GradScaler | None) -> Any:
        if not self._groups_at_work():
            return super()._step(closure, scaler)
        with self._own_gradients_only(), self._gradients_of_what_climbs():
            loss = self._run(closure)
        with self._away():
            complete = self._ascend(scaler)
            if complete:
                self._run(closure)
        if complete:
            self._descend(scaler)
        return loss

    def _own_gradients_only(self) -> contextlib.AbstractContextManager[Any]:
        if self.sync_ascent:
            return contextlib.nullcontext()
        return self.model.no_sync()  # type: ignore[union-attr, operator]

    @contextlib.contextmanager
    def _gradients_of_what_climbs(self) -> Iterator[None]:
        """Inside, weights that do not climb require no gradient, which spares their part of the backward pass."""
        still: list[Tensor] = []
        if self.layers != "all" and not hasattr(self.model, "no_sync") and not hasattr(self.model, "_orig_mod"):
            climbing = self._climbing()
            still = [
                p for group in self.param_groups for p in group["params"] if p.requires_grad and id(p) not in climbing
            ]
        try:
            for param in still:
                param.requires_grad_(False)
            yield
        finally:
            for param in still:
                param.requires_grad_(True)

    def _climbing(self) -> set[int]:
        return {id(param) for param in normalisation_parameters(self.model, type(self).__name__)}

    def _candidates(self, group: dict[str, Any]) -> list[Tensor]:
        """The parameters of a group that climb, if they have a gradient."""
        if self.layers == "all":
            return group["params"]
        climbing = self._climbing()
        return [param for param in group["params"] if id(param) in climbing]

    @torch.no_grad()
    def _ascend(self, scaler: GradScaler | None) -> bool:
        """Move all groups with a radius to ``w + eps``; False, with nothing moved, when the gradients overflowed."""
        groups = self._groups_at_work()
        candidates = [self._candidates(group) for group in groups]
        if all(p.grad is None for params in candidates for p in params):
            raise InputError(
                f"{type(self).__name__}: no parameter has a gradient after the first pass; the closure must call "
                "loss.backward() and the parameters must require gradients"
            )
        scaled = scaler is not None and scaler.is_enabled()
        if scaled:
            if not self.sync_ascent:
                # One rank alone would see its overflow, skip, and leave the others waiting.
                raise InputError(
                    f"{type(self).__name__}: sync_ascent=False and a GradScaler do not go together; use bf16"
                )
            scaler.unscale_(self._first_pass)  # type: ignore[union-attr, arg-type]
        pairs = [with_gradients(params) for params in candidates]
        params = [p for chosen, _ in pairs for p in chosen]
        gradients = [g for _, grads in pairs for g in grads]
        self.grad_norm = self._norm(params, gradients)
        if scaled and not bool(torch.isfinite(self.grad_norm)):
            return False
        if self.freeze_bn_stats:
            self._statistics.keep()
        self._perturbation.save(params)
        for group, (chosen, grads) in zip(groups, pairs, strict=True):
            uphill = -group["rho"] if group.get("maximize") else group["rho"]
            self._move(chosen, grads, uphill / (self.grad_norm + NORM_EPS))
        return True

    def _norm(self, params: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
        if not self.adaptive:
            return global_norm(gradients)
        parts: list[Tensor] = []
        for weights, grads, owners in chunks([real(p) for p in params], [real(g) for g in gradients], params):
            parts += norms(torch._foreach_mul(self._scaling(weights, owners), grads))
        return global_norm(parts)

    def _move(self, params: Sequence[Tensor], gradients: Sequence[Tensor], scale: Tensor) -> None:
        if not self.adaptive:
            move(params, gradients, scale)
            return
        for weights, grads, owners in chunks([local(p) for p in params], [local(g) for g in gradients], params):
            steps = self._scaling(weights, owners)
            torch._foreach_mul_(steps, steps)
            torch._foreach_mul_(steps, grads)
            torch._foreach_mul_(steps, on_device(scale, weights[0]))
            torch._foreach_add_(weights, steps)

    def _scaling(self, weights: list[Tensor], params: list[Tensor]) -> list[Tensor]:
        """T of ASAM for these tensors, new ones; here ``|w|``. ``params`` are the parameters they belong to."""
        return list(torch._foreach_abs(weights))
