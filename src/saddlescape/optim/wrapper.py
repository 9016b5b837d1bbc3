"""What SAM, perturbed gradient descent and Momentum-SAM share: an optimiser around an optimiser.

To schedulers, scalers, checkpoints and trainers the wrapper *is* a torch optimiser. It owns no parameter group and no
state of its own: both are those of the base optimiser, so a learning rate set on either is set on both, and a
checkpoint of the wrapper holds the base's momentum and no second copy of the weights.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from saddlescape import passes
from saddlescape.errors import InputError
from saddlescape.optim.batchnorm import KeptStatistics
from saddlescape.optim.perturb import Perturbation

Closure = Callable[[], Any]


class WrapperOptions(TypedDict, total=False):
    """What every wrapper takes by keyword; see :class:`WrappedOptimizer`."""

    model: nn.Module | None
    freeze_bn_stats: bool
    clip_grad_norm: float | None


class WrappedOptimizer(Optimizer):
    """Base class; alone it is the base optimiser with clipping and a scaler. What a subclass may change:

    - ``_step(closure, scaler)``: how often the closure runs and where the weights are meanwhile;
    - ``_ascend(scaler)``: where they go; False when the step is to be skipped;
    - ``_finish(scaler)``: what ``step()`` does without a closure;
    - ``_prepare()``: what happens to the unscaled gradients before the base optimiser sees them.

    Args:
        base_optimizer: a built ``torch.optim.Optimizer`` that makes the descent step.
        rho: radius of the perturbation; kept per group under ``group["rho"]``, where a schedule may change it. A group
            of the base that already has a ``rho`` keeps it. A 0-dim tensor is taken as it is and filled in place by
            ``set_rho``, which lets a captured CUDA graph see new values.
        model: the network; its running statistics are what ``freeze_bn_stats`` protects.
        freeze_bn_stats: leave running statistics as one plain pass would.
        clip_grad_norm: clip the gradient of the descent step to this global norm, after unscaling, before the step.

    Raises:
        InputError: the base is not a built optimiser, needs a closure itself (LBFGS), has an option called ``rho``
            (Adadelta), or a number is out of range.
    """

    # With this mark GradScaler.step(optimizer) hands over its scale and its verdict instead of deciding alone, so
    # that weights come back also when the gradient overflowed. See `_take_over_from_scaler`.
    _step_supports_amp_scaling = True

    per_sample: ClassVar[bool] = False
    """Whether ``step`` wants a closure that returns the vector of per-sample losses, and the targets."""

    def __init__(
        self,
        base_optimizer: Optimizer,
        rho: float | Tensor,
        *,
        model: nn.Module | None = None,
        freeze_bn_stats: bool = True,
        clip_grad_norm: float | None = None,
    ) -> None:
        name = type(self).__name__
        _check_base(base_optimizer, name)
        for radius in [rho, *(group["rho"] for group in base_optimizer.param_groups if "rho" in group)]:
            _check_rho(radius, name)
        if clip_grad_norm is not None and not clip_grad_norm > 0:
            raise InputError(
                f"{name}: clip_grad_norm must be above 0, got {clip_grad_norm!r}; use None for no clipping"
            )
        self.base_optimizer = base_optimizer
        self.model = model
        self.freeze_bn_stats = freeze_bn_stats
        self.clip_grad_norm = clip_grad_norm
        self.grad_norm: Tensor | None = None
        self._rho = rho
        for group in base_optimizer.param_groups:
            group.setdefault("rho", rho)
        self._start_life()

    def _start_life(self) -> None:
        # Optimizer.__init__ would make groups and state of our own; __setstate__ makes the rest: the tables of hooks
        # and the profiling of step.
        Optimizer.__setstate__(self, {})
        self._perturbation = Perturbation()
        self._statistics = KeptStatistics(self.model)
        self._begun = _Begun()
        self._first_pass = _FirstPass(self)
        self._seen = False  # whether this step has run the whole batch

    # --- an optimiser to all who look -------------------------------------------------------------------------------

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The base optimiser's groups themselves."""
        return self.base_optimizer.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        """The base optimiser's state itself."""
        return self.base_optimizer.state

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """The base optimiser's defaults and ``rho``."""
        return {**self.base_optimizer.defaults, "rho": self._rho}

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; a group without ``rho`` gets the default one."""
        self.base_optimizer.add_param_group(param_group)
        self.param_groups[-1].setdefault("rho", self._rho)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.base_optimizer.zero_grad(set_to_none=set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """The base optimiser's state dict, ``rho`` in its groups; it also loads into a bare base optimiser."""
        for pre_hook in self._optimizer_state_dict_pre_hooks.values():
            pre_hook(self)
        state_dict = dict(self.base_optimizer.state_dict())
        extra = self._extra_state()
        if extra:
            state_dict["saddlescape"] = extra
        for post_hook in self._optimizer_state_dict_post_hooks.values():
            changed = post_hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        return state_dict

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict of this class or of the bare base optimiser (``rho`` then stays what it is)."""
        for pre_hook in self._optimizer_load_state_dict_pre_hooks.values():
            changed = pre_hook(self, state_dict)
            state_dict = state_dict if changed is None else changed
        radii = [group["rho"] for group in self.param_groups]
        extra = state_dict.get("saddlescape")
        self.base_optimizer.load_state_dict({key: v for key, v in state_dict.items() if key != "saddlescape"})
        for group, rho in zip(self.param_groups, radii, strict=True):
            group.setdefault("rho", rho)
        if extra is not None:
            self._load_extra_state(extra)
        for post_hook in self._optimizer_load_state_dict_post_hooks.values():
            post_hook(self)

    def _extra_state(self) -> dict[str, Any]:
        """What a subclass must remember beyond the base's state; only numbers and tensors."""
        return {}

    def _load_extra_state(self, extra: dict[str, Any]) -> None:
        """Counterpart of ``_extra_state``."""

    def __getstate__(self) -> dict[str, Any]:
        drop = ("_perturbation", "_statistics", "_first_pass", "_begun")
        return {
            k: v for k, v in self.__dict__.items() if k not in drop and not k.startswith("_optimizer_") and k != "step"
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start_life()

    # --- the radius -------------------------------------------------------------------------------------------------

    def set_rho(self, value: float) -> None:
        """Set ``rho`` of every group, as a schedule does once an epoch: also of a group whose radius is 0.

        To leave a group unperturbed, set ``group["rho"]`` of the other groups instead.
        """
        _check_rho(value, type(self).__name__)
        for group in self.param_groups:
            if isinstance(group["rho"], Tensor):
                group["rho"].fill_(value)
            else:
                group["rho"] = value

    @property
    def passes_per_step(self) -> int:
        """How many times ``step`` runs the closure at the present ``rho``."""
        return 1

    @property
    def is_perturbed(self) -> bool:
        """True while the weights are perturbed: do not log metrics or save the model then."""
        return self._perturbation.active

    # --- a step -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Closure | None = None, *, scaler: GradScaler | None = None) -> Any:  # type: ignore[override]
        """One whole step; returns what the closure returned in its first pass.

        The closure follows torch's convention: it zeroes the gradients, runs forward and backward, returns the loss.
        With an enabled ``scaler`` it scales the loss before ``backward``; ``scaler.update()`` stays with the caller.
        """
        with self._transaction():
            if closure is None:
                self._finish(scaler)
                return None
            if hasattr(self, "found_inf"):
                raise InputError(
                    f"{type(self).__name__}: GradScaler.step(optimizer, closure) cannot run a closure; "
                    "call optimizer.step(closure, scaler=scaler) and then scaler.update()"
                )
            self._refuse_if_begun()
            return self._step(closure, scaler)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """After an error inside, weights and running statistics are those of before and nothing is left of a step."""
        self._seen = False
        try:
            yield
        except BaseException:
            self.restore()
            # GradScaler takes its marks off only after a step that ended well.
            for mark in ("found_inf", "grad_scale"):
                self.__dict__.pop(mark, None)
            raise

    def ascend(self, *, scaler: GradScaler | None = None) -> bool:
        """First half of the two-call form; returns whether the weights are now away and a pass is wanted there."""
        self._refuse_if_begun()
        moved = False
        if self._groups_at_work():
            try:
                moved = self._ascend(scaler)
            except BaseException:
                self.restore()
                raise
            self._begun.skip = not moved
        self._begun.yes = True
        return moved

    def descend(self, *, scaler: GradScaler | None = None) -> None:
        """Second half: weights back home, then the base optimiser's step with the gradients there are now."""
        # By way of step, which schedulers watch and whose hooks are the user's.
        self.step(None, scaler=scaler)

    def restore(self) -> None:
        """Bring weights and running statistics home and forget a begun step. Safe to call at any time.

        Only hand-written loops that stop between ``ascend`` and ``descend`` need it; ``step(closure)`` does it alone.
        """
        self._perturbation.restore()
        self._statistics.restore()
        self._begun.yes = self._begun.skip = False

    # --- its parts --------------------------------------------------------------------------------------------------

    def _step(self, closure: Closure, scaler: GradScaler | None) -> Any:
        loss = self._run(closure)
        self._descend(scaler)
        return loss

    def _ascend(self, scaler: GradScaler | None) -> bool:
        return True

    def _finish(self, scaler: GradScaler | None) -> None:
        if not self._begun.yes:
            raise InputError(
                f"{type(self).__name__}: step() needs a closure that runs forward and backward: "
                "optimizer.step(closure); or call ascend() before and descend() after the last pass"
            )
        skip = self._begun.skip
        self.restore()
        if not skip:
            self._descend(scaler)

    def _refuse_if_begun(self) -> None:
        if self._begun.yes or self.is_perturbed:
            self.restore()
            raise InputError(
                f"{type(self).__name__}: a step was begun with ascend() and not ended; weights are restored now. "
                "Call descend() after every ascend(), or restore() to give a step up; in Lightning use step(closure)"
            )

    @contextlib.contextmanager
    def _away(self) -> Iterator[None]:
        """Inside, weights may be moved; on leaving, however that happens, they are home again."""
        try:
            try:
                yield
            finally:
                self.restore()
        except BaseException:
            # An interrupt may arrive while the line above runs; restoring twice does no harm.
            self.restore()
            raise

    def _run(self, closure: Closure) -> Any:
        with torch.enable_grad(), self._a_pass():
            return closure()

    @contextlib.contextmanager
    def _a_pass(self, whole: bool = True) -> Iterator[None]:
        """Around a call of the closure: all but the first one over the whole batch are repetitions."""
        with passes.repeated(self._seen or not whole):
            yield
        self._seen = self._seen or whole

    def _groups_at_work(self) -> list[dict[str, Any]]:
        """Groups that are perturbed. A tensor's value is not looked at: that would wait for the device."""
        return [group for group in self.param_groups if isinstance(group["rho"], Tensor) or group["rho"] != 0]

    @torch.no_grad()
    def _descend(self, scaler: GradScaler | None = None) -> None:
        """The base optimiser's step with the gradients that are there: unscale, prepare (clip), step."""
        if scaler is not None and scaler.is_enabled():
            if self._needs_unscaled():
                scaler.unscale_(self.base_optimizer)
                self._prepare()
            scaler.step(self.base_optimizer)
        elif self._take_over_from_scaler():
            self._prepare()
            self.base_optimizer.step()

    def _needs_unscaled(self) -> bool:
        """Whether ``_prepare`` does anything; if not, unscaling is left to the scaler and a fused base optimiser."""
        return self.clip_grad_norm is not None

    def _prepare(self) -> None:
        if self.clip_grad_norm is not None:
            nn.utils.clip_grad_norm_(self._params_with_gradient(), self.clip_grad_norm)

    def _params_with_gradient(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"] if p.grad is not None]

    def _take_over_from_scaler(self) -> bool:
        """Do what ``GradScaler.step(optimizer)`` leaves to us; False when the gradients are not finite.

        The scaler, when it calls us, leaves ``found_inf`` and ``grad_scale`` (None when it has unscaled) behind.
        """
        if not hasattr(self, "found_inf"):
            return True
        found_inf, scale = self.found_inf, getattr(self, "grad_scale", None)
        if bool(found_inf):  # the one wait for the device that GradScaler makes for every ordinary optimiser
            return False
        if scale is not None:
            for param in self._params_with_gradient():
                param.grad.mul_(1.0 / scale.to(param.device))  # type: ignore[union-attr]
        return True


@dataclass
class _Begun:
    """How far the two-call form has come. One object, never replaced: Lightning's wrapper sees through to it."""

    yes: bool = False
    skip: bool = False


class _FirstPass:
    """The optimiser as GradScaler sees it in the first pass.

    A scaler unscales once per optimiser and step, and SAM has two sets of gradients a step. Under a second name the
    first set is unscaled too, and ``scaler.update()`` backs off, once, if either set overflowed.
    """

    def __init__(self, owner: WrappedOptimizer) -> None:
        self._owner = owner

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return self._owner.param_groups


def _check_base(base: Any, name: str) -> None:
    if not isinstance(base, Optimizer):
        raise InputError(
            f"{name}: base_optimizer must be a built torch.optim.Optimizer, such as "
            f"torch.optim.SGD(model.parameters(), lr=0.1), got {'the class ' if isinstance(base, type) else 'a '}"
            f"{base.__name__ if isinstance(base, type) else type(base).__name__}"
        )
    if isinstance(base, WrappedOptimizer):
        raise InputError(f"{name}: the base optimiser is itself a {type(base).__name__}; wrap the plain one under it")
    closure = inspect.signature(base.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise InputError(
            f"{name}: {type(base).__name__} runs the closure itself (line search), so it cannot be the base optimiser; "
            "use SGD or Adam"
        )
    if "rho" in base.defaults:
        raise InputError(
            f"{name}: {type(base).__name__} has an option of its own called rho; use another base optimiser"
        )


def _check_rho(rho: float | Tensor, name: str) -> None:
    if isinstance(rho, Tensor):
        if rho.dim() != 0:
            raise InputError(
                f"{name}: rho must be a number or a 0-dim tensor, got a tensor of shape {tuple(rho.shape)}"
            )
    elif isinstance(rho, bool) or not isinstance(rho, (int, float)) or not 0 <= rho < float("inf"):
        raise InputError(f"{name}: rho must be a finite number of at least 0, got {rho!r}")
