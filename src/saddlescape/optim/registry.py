"""From a word, as ``--method`` has it, to an optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from saddlescape.errors import InputError
from saddlescape.optim.asam import ASAM
from saddlescape.optim.momentum_sam import MomentumSAM
from saddlescape.optim.pgd import PerturbedGD
from saddlescape.optim.sam import SAM


def _sgd(base: Optimizer, *, rho: float | None = None, model: nn.Module | None = None) -> Optimizer:
    return base


def _sam(base: Optimizer, *, rho: float | None = None, model: nn.Module | None = None, **kw: Any) -> Optimizer:
    return SAM(base, 0.05 if rho is None else rho, model=model, **kw)


def _asam(base: Optimizer, *, rho: float | None = None, model: nn.Module | None = None, **kw: Any) -> Optimizer:
    return ASAM(base, 0.5 if rho is None else rho, model=model, **kw)


def _momentum_sam(base: Optimizer, *, rho: float | None = None, model: nn.Module | None = None, **kw: Any) -> Optimizer:
    return MomentumSAM(base, 1.0 if rho is None else rho, **kw)


def _pgd(base: Optimizer, *, rho: float | None = None, model: nn.Module | None = None, **kw: Any) -> Optimizer:
    if rho is None:
        raise InputError("optimiser 'pgd' has no usual radius; give rho=")
    return PerturbedGD(base, rho, **kw)


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": _sgd,
    "sam": _sam,
    "asam": _asam,
    "momentum-sam": _momentum_sam,
    "pgd": _pgd,
}


def build_optimizer(
    base: Optimizer, name: str, *, rho: float | None = None, model: nn.Module | None = None, **kw: Any
) -> Optimizer:
    """Wrap ``base`` in the optimiser called ``name``; ``"sgd"`` gives ``base`` back.

    ``rho`` None is the class's own default. ``kw`` goes to the class; ``"pgd"`` needs ``rho`` (the ball's radius) and
    ``t_thr``. A new optimiser is one more entry of ``OPTIMIZERS``: name -> function of (base, rho=, model=, **kw).

    Raises InputError: an unknown name or option, or what the class raises.
    """
    try:
        build = OPTIMIZERS[name]
    except KeyError:
        raise InputError(f"unknown optimiser {name!r}; known are {', '.join(OPTIMIZERS)}") from None
    try:
        return build(base, rho=rho, model=model, **kw)
    except TypeError as error:
        raise InputError(f"optimiser {name!r}: {error}") from error
