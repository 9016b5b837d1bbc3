"""Every rule from epoch to value: learning rate, radius of SAM, deferred re-weighting. Pure functions of the epoch.

Epochs count from 0. Milestones are those of a reference run (200 epochs on CIFAR, 90 on the large sets) and
``stretch`` carries them to a run of any other length, in one way for all rules, so that the re-weighting still starts
with the first drop of the learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from saddlescape.errors import InputError, counted, near

if TYPE_CHECKING:
    from torch import Tensor

    from saddlescape.counts import ClassCounts

__all__ = [
    "LR_SCHEDULES",
    "DeferredReweighting",
    "constant_lr",
    "cosine_lr",
    "ib_lr",
    "linear_lr",
    "lr_schedule",
    "mislas_lr",
    "never_begins",
    "paper_cifar_lr",
    "rho_schedule",
    "step_lr",
    "stretch",
]

Schedule = Callable[[int], float]

# Warm-up, first and second drop of the 200-epoch CIFAR recipes; radius steps of the 90-epoch recipes.
CIFAR_MILESTONES, CIFAR_EPOCHS = (5, 160, 180), 200
LARGE_SCALE_MILESTONES, LARGE_SCALE_EPOCHS = (5, 60, 75), 90


def stretch(milestone: int, total: int, reference_total: int) -> int:
    """Carry a milestone of a run of ``reference_total`` epochs to one of ``total`` epochs.

    milestone * total / reference_total, rounded half up; a milestone strictly inside the reference run stays strictly
    inside the new one (1 .. total - 1, if that has two epochs or more), so that no warm-up, drop or re-weighting is
    rounded away. Order is kept, and at ``total == reference_total`` the result is ``milestone``.

    Raises:
        InputError: a negative milestone, or totals that are not positive.
    """
    if total < 1 or reference_total < 1:
        raise InputError(f"a run has at least one epoch, got total={total} and reference_total={reference_total}")
    if milestone < 0:
        raise InputError(f"milestone is {milestone}; epochs count from 0")
    stretched = (2 * milestone * total + reference_total) // (2 * reference_total)
    if 0 < milestone < reference_total and total >= 2:
        stretched = min(max(stretched, 1), total - 1)
    return stretched


def step_lr(
    epoch: int,
    total: int,
    base_lr: float,
    *,
    warmup: int,
    milestones: Sequence[int],
    factors: Sequence[float],
    reference_total: int,
) -> float:
    """Linear warm-up base_lr * (epoch + 1) / warmup, then base_lr, then base_lr * factors[k] from milestones[k] on.

    ``warmup`` and ``milestones`` are epochs of a run of ``reference_total``; they are stretched to ``total``.

    Raises:
        InputError: a negative epoch, or as many factors as there are not milestones.
    """
    _check_epoch(epoch)
    if len(milestones) != len(factors):
        raise InputError(f"{len(milestones)} milestones need as many factors, got {len(factors)}")
    warm = stretch(warmup, total, reference_total)
    if epoch < warm:
        return base_lr * (epoch + 1) / warm
    passed = [k for k, milestone in enumerate(milestones) if epoch >= stretch(milestone, total, reference_total)]
    return base_lr * factors[passed[-1]] if passed else base_lr


def paper_cifar_lr(epoch: int, total: int = 200, base_lr: float = 0.1) -> float:
    """The paper's CIFAR schedule (LDAM-DRW's): 5 epochs of warm-up, x 0.01 from epoch 160, x 0.0001 from epoch 180.

    With e = epoch + 1 and 200 epochs: 0.1 e / 5 up to e = 5, 0.1 up to 160, 1e-3 up to 180, 1e-5 after.
    """
    return step_lr(
        epoch, total, base_lr, warmup=5, milestones=(160, 180), factors=(0.01, 0.0001), reference_total=CIFAR_EPOCHS
    )


def mislas_lr(epoch: int, total: int = 200, base_lr: float = 0.1) -> float:
    """MiSLAS's CIFAR schedule, stage 1: as ``paper_cifar_lr`` with drops to x 0.1 and x 0.01."""
    return step_lr(
        epoch, total, base_lr, warmup=5, milestones=(160, 180), factors=(0.1, 0.01), reference_total=CIFAR_EPOCHS
    )


def ib_lr(epoch: int, total: int = 200, base_lr: float = 0.1) -> float:
    """The influence-balanced loss's CIFAR schedule: x 1e-2 from epoch 100, x 1e-4 from 160, x 1e-6 from 180."""
    return step_lr(
        epoch,
        total,
        base_lr,
        warmup=5,
        milestones=(100, 160, 180),
        factors=(1e-2, 1e-4, 1e-6),
        reference_total=CIFAR_EPOCHS,
    )


def cosine_lr(epoch: int, total: int, base_lr: float, warmup: int = 0) -> float:
    """Half a cosine from base_lr towards 0: 0.5 base_lr (1 + cos(pi t / T)), the values of torch's CosineAnnealingLR.

    With ``warmup`` W (in epochs of this run) the first W are base_lr * (epoch + 1) / W and the cosine has T - W left.
    """
    _check_epoch(epoch)
    if not 0 <= warmup < total:
        raise InputError(f"warmup is {warmup}; it must be at least 0 and shorter than the run of {total} epochs")
    if epoch < warmup:
        return base_lr * (epoch + 1) / warmup
    part = min((epoch - warmup) / (total - warmup), 1.0)
    return 0.5 * base_lr * (1 + math.cos(math.pi * part))


def linear_lr(epoch: int, total: int, base_lr: float) -> float:
    """Up over the first tenth, base_lr * (epoch + 1) / (W + 1), then down a straight line that ends at 0.

    With W = total / 10, rounded and at least 1, epoch W has base_lr and the last one base_lr / (total - W).
    """
    _check_epoch(epoch)
    warm = max(1, round(total / 10))
    if epoch < warm:
        return base_lr * (epoch + 1) / (warm + 1)
    return base_lr * max(total - epoch, 0) / (total - warm) if total > warm else base_lr


def constant_lr(epoch: int, total: int, base_lr: float) -> float:
    """base_lr."""
    _check_epoch(epoch)
    return base_lr


LR_SCHEDULES: dict[str, Callable[[int, int, float], float]] = {
    "paper-cifar": paper_cifar_lr,
    "cosine": cosine_lr,
    "linear": linear_lr,
    "constant": constant_lr,
    "mislas": mislas_lr,
    "ib": ib_lr,
}


def lr_schedule(name: str, total_epochs: int, base_lr: float) -> Schedule:
    """The learning-rate rule called ``name`` for a run of ``total_epochs``: epoch -> learning rate (picklable).

    Raises:
        InputError: an unknown name, with near matches; no epochs; a learning rate that is negative or not finite.
    """
    if name not in LR_SCHEDULES:
        raise InputError(f"unknown learning-rate schedule {name!r}; {near(name, LR_SCHEDULES)}")
    if total_epochs < 1:
        raise InputError(f"total_epochs is {total_epochs}; a run has at least one epoch")
    if not (math.isfinite(base_lr) and base_lr >= 0):
        raise InputError(f"base_lr is {base_lr}; it must be finite and not negative")
    return partial(LR_SCHEDULES[name], total=total_epochs, base_lr=base_lr)  # type: ignore[call-arg]


def rho_schedule(
    kind: str,
    *,
    total: int = CIFAR_EPOCHS,
    rho: float = 0.05,
    rho_min: float = 0.05,
    rho_max: float = 0.8,
    values: Sequence[float] = (0.05, 0.1, 0.5, 0.6),
    milestones: Sequence[int] = CIFAR_MILESTONES,
    reference_total: int = CIFAR_EPOCHS,
    half_precision: bool = False,
) -> Schedule:
    """The radius of SAM over epochs, as the paper's code has it: epoch -> rho (picklable).

    Args:
        kind: "constant": ``rho``. "linear": from ``rho_min`` in the first epoch to ``rho_max`` in the last.
            "step": values[k] from milestones[k - 1] on; there is one value more than milestones.
        total: epochs of the run.
        values, milestones, reference_total: for "step". The defaults are the CIFAR script's (0.05 up to e = 5, 0.1 up
            to 160, 0.5 up to 180, 0.6 after, e = epoch + 1). The large-scale recipes have
            ``milestones=LARGE_SCALE_MILESTONES`` (5, 60, 75) and ``reference_total=LARGE_SCALE_EPOCHS`` (90) with four
            values of their own, such as 0.05, 0.1, 0.5, 0.5.
        half_precision: round "linear" to float16, as the official code does; it moves rho by up to 0.05 %.

    Raises:
        InputError: an unknown kind, a negative or infinite radius, or values that do not fit the milestones.
    """
    if total < 1:
        raise InputError(f"total is {total}; a run has at least one epoch")
    for number in (rho, rho_min, rho_max, *values):
        if not (math.isfinite(number) and number >= 0):
            raise InputError(f"rho is {number}; a radius is finite and not negative")
    if kind == "constant":
        return partial(_constant_rho, rho=float(rho))
    if kind == "linear":
        return partial(_linear_rho, total=total, low=rho_min, high=rho_max, half=half_precision)
    if kind == "step":
        if len(values) != len(milestones) + 1:
            raise InputError(
                f"{len(milestones)} milestones need {len(milestones) + 1} values of rho, got {len(values)}"
            )
        stretched = tuple(stretch(milestone, total, reference_total) for milestone in milestones)
        if list(stretched) != sorted(stretched):
            raise InputError(f"milestones must ascend, got {list(milestones)}")
        return partial(_step_rho, values=tuple(map(float, values)), starts=stretched)
    raise InputError(f"unknown kind of rho schedule {kind!r}; known are constant, linear, step")


def starting_at(start_epoch: int, schedule: Schedule) -> Schedule:
    """``schedule`` from ``start_epoch`` on, 0 before: SAM late in training only (Zhou et al., ICLR 2025)."""
    return partial(_late, start_epoch=start_epoch, schedule=schedule)


def _late(epoch: int, *, start_epoch: int, schedule: Schedule) -> float:
    _check_epoch(epoch)
    return schedule(epoch) if epoch >= start_epoch else 0.0


def _constant_rho(epoch: int, *, rho: float) -> float:
    _check_epoch(epoch)
    return rho


def _linear_rho(epoch: int, *, total: int, low: float, high: float, half: bool) -> float:
    _check_epoch(epoch)
    rho = low + (high - low) * min(epoch / (total - 1), 1.0) if total > 1 else low
    return float(np.float16(rho)) if half else rho


def _step_rho(epoch: int, *, values: tuple[float, ...], starts: tuple[int, ...]) -> float:
    _check_epoch(epoch)
    return values[sum(epoch >= start for start in starts)]


class DeferredReweighting:
    """DRW, Cao et al., NeurIPS 2019: no class weights before ``start_epoch``, effective-number weights from it on.

    ``start_epoch`` counts from 0: 160 of 200 on CIFAR, 60 of 90 on the large sets (``stretch`` it for other lengths).
    The state is the epoch alone, so a resumed run switches where an uninterrupted one does.

    Deviation from the LDAM-DRW code: its weights come from beta = 0 before the switch, which are ones up to rounding;
    here they are ones. Its list of betas ends at twice the start epoch; here the weights stay on.

    Raises:
        InputError: a class without images, a negative start, or beta outside [0, 1).
    """

    def __init__(
        self, class_counts: ClassCounts, start_epoch: int, beta: float = 0.9999
    ) -> None:
        from saddlescape.counts import effective_number_weights  # rules for numbers need no torch

        _check_epoch(start_epoch)
        self.start_epoch, self.beta = int(start_epoch), float(beta)
        self._late = effective_number_weights(class_counts, self.beta)

    def weights(self, epoch: int) -> Tensor:
        """Class weights in this epoch: float32 [C] on the CPU, ones before the start, summing to C. A fresh tensor."""
        _check_epoch(epoch)
        return self._late.clone() if self.is_on(epoch) else self._late.new_ones(len(self._late))

    def is_on(self, epoch: int) -> bool:
        return epoch >= self.start_epoch

    def __repr__(self) -> str:
        return f"DeferredReweighting(classes={len(self._late)}, start_epoch={self.start_epoch}, beta={self.beta})"


def never_begins(what: str, start_epoch: int, total: int) -> str | None:
    """One line to print at the start of a run if ``what`` starts after its last epoch; None if it does start."""
    if start_epoch < total:
        return None
    return f"{what} starts at epoch {start_epoch} but the run ends after {counted(total, 'epoch')}: it never begins"


def _check_epoch(epoch: int) -> None:
    if epoch < 0:
        raise InputError(f"epoch is {epoch}; epochs count from 0")
