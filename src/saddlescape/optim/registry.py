"""From a word, as ``--method`` has it, to an optimiser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import Optimizer

from saddlescape.counts import ClassCounts
from saddlescape.errors import InputError
from saddlescape.optim.asam import ASAM
from saddlescape.optim.class_conditional_sam import ClassConditionalSAM
from saddlescape.optim.focal_sam import FocalSAM
from saddlescape.optim.imbsam import ImbSAM
from saddlescape.optim.momentum_sam import MomentumSAM
from saddlescape.optim.partial_sam import PartialSAM
from saddlescape.optim.pgd import PerturbedGD
from saddlescape.optim.sam import SAM
from saddlescape.optim.sse_sam import SSESAM

Builder = Callable[..., Optimizer]


def _around(kind: Callable[..., Optimizer], **fixed: Any) -> Builder:
    def build(
        base: Optimizer, *, rho: float | None = None, class_counts: ClassCounts | None = None, **kw: Any
    ) -> Optimizer:
        counts = () if class_counts is None else (class_counts,)
        return kind(base, *counts, **({} if rho is None else {"rho": rho}), **fixed, **kw)

    return build


def _sgd(base: Optimizer, *, rho: float | None = None, model: nn.Module | None = None) -> Optimizer:
    return base


def _pgd(base: Optimizer, *, rho: float | None = None, **kw: Any) -> Optimizer:
    if rho is None:
        raise InputError("optimiser 'pgd' has no usual radius; give rho=")
    return PerturbedGD(base, rho, **kw)


def _cc_sam(base: Optimizer, *, rho: float | None = None, model: nn.Module | None = None, **kw: Any) -> Optimizer:
    head = getattr(getattr(model, "module", model), "head", None)
    if not isinstance(head, nn.Module):
        raise InputError("optimiser 'cc-sam' needs model= with a .head, whose parameters it perturbs")
    kappa = {} if rho is None else {"kappa": rho}
    return _around(ClassConditionalSAM, head=head, model=model)(base, **kappa, **kw)


OPTIMIZERS: dict[str, Builder] = {
    "sgd": _sgd,
    "sam": _around(SAM),
    "asam": _around(ASAM),
    "sam-on": _around(SAM, layers="norm"),
    "momentum-sam": _around(MomentumSAM),
    "pgd": _pgd,
    "imbsam": _around(ImbSAM),
    "focal-sam": _around(FocalSAM),
    "cc-sam": _cc_sam,
    "partial-sam": _around(PartialSAM),
    "sse-sam": _around(SSESAM),
}

NEED_CLASS_COUNTS = ("imbsam", "focal-sam", "cc-sam", "partial-sam", "sse-sam")


def build_optimizer(
    base: Optimizer,
    name: str,
    *,
    rho: float | None = None,
    model: nn.Module | None = None,
    class_counts: ClassCounts | None = None,
    **kw: Any,
) -> Optimizer:
    """Wrap ``base`` in the optimiser called ``name``; ``"sgd"`` gives ``base`` back.

    ``rho`` None is the class's own default; of ``"cc-sam"`` it is kappa. ``class_counts`` [C] is needed by those that
    split losses by class (``NEED_CLASS_COUNTS``) and ignored by the others; ``"cc-sam"`` perturbs ``model.head``,
    ``"sam-on"`` the normalisation layers of ``model``. ``kw`` goes to the class; ``"pgd"`` needs ``rho`` (the ball's
    radius) and ``t_thr``. A new optimiser is one more entry of ``OPTIMIZERS``: name -> function of
    ``(base, rho=, model=, **kw)``, and of class_counts= where it is named in ``NEED_CLASS_COUNTS``.

    Raises:
        InputError: an unknown name or option, no class counts where they are needed, or what the class raises.
    """
    try:
        build = OPTIMIZERS[name]
    except KeyError:
        raise InputError(f"unknown optimiser {name!r}; known are {', '.join(OPTIMIZERS)}") from None
    if name in NEED_CLASS_COUNTS:
        if class_counts is None:
            raise InputError(f"optimiser {name!r} treats classes by their size; give class_counts=")
        kw["class_counts"] = class_counts
    try:
        return build(base, rho=rho, model=model, **kw)
    except TypeError as error:
        raise InputError(f"optimiser {name!r}: {error}") from error
