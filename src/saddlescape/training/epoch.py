"""What a stage means at an epoch: the one place that decides it, for training, curvature and the escape experiment."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from saddlescape import schedules
from saddlescape.counts import effective_number_weights, power_weights
from saddlescape.errors import InputError
from saddlescape.losses.base import ClassLoss
from saddlescape.losses.registry import build_loss, normalization_of
from saddlescape.passes import PASSES
from saddlescape.records.config import Stage
from saddlescape.records.milestones import is_early, reweighting_start
from saddlescape.training.trainable import is_frozen


class EpochSetting(NamedTuple):
    """One epoch of a stage. ``loss`` is on the CPU, with ``weights`` set and its normalisation decided."""

    lr: float
    rho: float | None  # None: the stage has no radius
    loss: ClassLoss
    weights: Tensor | None  # class weights [C] of the stage; None: the loss keeps its own, if it has any
    epoch: int  # with ``epochs``, what objectives that change over training go by
    epochs: int
    work: float  # see ``work``


def at(stage: Stage, class_counts: Sequence[int], epoch: int) -> EpochSetting:
    """The setting of ``stage`` in ``epoch`` (from 0) for classes with ``class_counts`` training images, [C].

    Raises:
        InputError: a name, option or number that its registry does not take.
    """
    loss = loss_of(stage, class_counts, early=is_early(stage, epoch))
    weights = _class_weights(stage, class_counts, epoch)
    if weights is not None:
        loss.set_weight(weights)
    return EpochSetting(
        lr=schedules.lr_schedule(stage.lr_schedule, stage.epochs, stage.lr)(epoch),
        rho=_rho(stage)(epoch) if stage.rho else None,
        loss=loss,
        weights=weights,
        epoch=epoch,
        epochs=stage.epochs,
        work=work(stage, sum(class_counts), epoch),
    )


FORWARD = 1 / 3  # of the work of a forward and a backward pass


def work(stage: Stage, images: int, epoch: int) -> float:
    """Forward and backward passes over ``images`` training images that an epoch of ``stage`` makes ("units of work").

    1 for SGD, 2 for SAM, 2 for two views of each image; a third where the backbone is frozen or the head is fitted.
    What PartialSAM takes of the tail beyond its share, and losses and heads, do not count.
    """
    passes = 1.0
    if stage.head_fit or is_frozen(stage.trainable):
        passes = FORWARD
    elif stage.rho and _rho(stage)(epoch) > 0:
        partial = 1 + float(stage.optimizer_options.get("share", 0.25))
        passes = partial if stage.optimizer == "partial-sam" else PASSES.get(stage.optimizer, 1.0)
    shown = float(stage.sampler_options.get("num_samples", images)) / images
    return passes * shown * (1 + len(stage.views)) * (2 if stage.partner else 1)


def total_work(stages: Sequence[Stage], images: int) -> float:
    """``work`` of all epochs of ``stages``, of a first stage that another run has trained too."""
    return sum(work(stage, images, epoch) for stage in stages for epoch in range(stage.epochs))


def loss_of(stage: Stage, class_counts: Sequence[int], *, early: bool = False) -> ClassLoss:
    """The stage's loss (or the one before it) without the stage's class weights, normalised as it says or else itself.

    Raises:
        InputError: an unknown loss or option, or a word where a number belongs.
    """
    name, options = (stage.early_loss, {}) if early else (stage.loss, dict(stage.loss_options))
    try:
        loss = build_loss(name, class_counts, **options)
    except TypeError as error:
        raise InputError(f"stage {stage.name!r}: loss_options {options}: {error}") from error
    if stage.normalization:
        loss.normalization = "samples" if stage.normalization == "samples" else "weights"
    return loss


def without_usual_normalization(stage: Stage) -> Stage:
    """The same stage, ``normalization`` left to its losses where it names what they have, as older files always do."""
    usual = {normalization_of(name) for name in (stage.loss, stage.early_loss) if name}
    return dataclasses.replace(stage, normalization="") if usual == {stage.normalization} else stage


def _class_weights(stage: Stage, class_counts: Sequence[int], epoch: int) -> Tensor | None:
    """Ones before deferred re-weighting starts."""
    start = reweighting_start(stage)
    if start is None:
        return None
    if stage.reweight == "power":
        return power_weights(class_counts, stage.power)
    return effective_number_weights(class_counts, stage.beta if epoch >= start else 0.0)


def _rho(stage: Stage) -> Callable[[int], float]:
    """The radius over epochs. Raises InputError where the numbers do not fit the schedule."""
    schedule = _rho_from_the_start(stage)
    return schedule if stage.rho_start == 0 else schedules.starting_at(stage.rho_start, schedule)


def _rho_from_the_start(stage: Stage) -> Callable[[int], float]:
    if stage.rho_schedule == "constant":
        return schedules.rho_schedule("constant", rho=stage.rho[0])
    if stage.rho_schedule == "linear":
        if len(stage.rho) != 2:
            raise InputError(f"rho_schedule linear needs two numbers, from and to; rho is {list(stage.rho)}")
        return schedules.rho_schedule("linear", total=stage.epochs, rho_min=stage.rho[0], rho_max=stage.rho[1])
    large_scale = stage.rho_schedule == "large-scale-step"
    milestones: Sequence[int]
    if stage.rho_schedule == "step" and len(stage.rho) == 2:
        milestones, reference = schedules.CIFAR_MILESTONES[1:2], schedules.CIFAR_EPOCHS  # from 80 % of training on
    elif large_scale or stage.lr_schedule == "cosine":
        milestones, reference = schedules.LARGE_SCALE_MILESTONES, schedules.LARGE_SCALE_EPOCHS
    else:
        milestones, reference = schedules.CIFAR_MILESTONES, schedules.CIFAR_EPOCHS
    return schedules.rho_schedule(
        "step" if large_scale else stage.rho_schedule, total=stage.epochs, values=stage.rho, milestones=milestones,
        reference_total=reference,
    )  # fmt: skip
