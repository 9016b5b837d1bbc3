"""From a stage's numbers and names to the parts that the loop runs: the one place where the instruments meet."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from saddlescape import schedules
from saddlescape.data.augment import build_augment
from saddlescape.data.loader import build_loader
from saddlescape.data.reader import pixels
from saddlescape.data.samplers import Sampler, build_sampler
from saddlescape.data.types import Dataset, Preprocess
from saddlescape.errors import InputError
from saddlescape.losses.registry import build_loss
from saddlescape.models.heads import make_head
from saddlescape.models.registry import build_model
from saddlescape.optim.registry import build_optimizer
from saddlescape.training.loop import Loader, Parts
from saddlescape.training.objective import OBJECTIVES
from saddlescape.training.precision import Precision
from saddlescape.training.stage import Stage

EVALUATION_BATCH = 500
TWO_PASSES = ("sam", "asam")
CHOICES = {
    "trainable": ("all", "head"),
    "backbone_mode": ("train", "eval"),
    "normalization": ("weights", "samples"),
    "reweight": ("none", "drw", "always"),
}


def new_model(name: str, dataset: Dataset, head: str, seed: int, **options: Any) -> nn.Module:
    """A freshly initialised network for ``dataset``; the weights are a function of ``seed`` alone."""
    torch.manual_seed(seed)
    return build_model(
        name, dataset.num_classes, head=cast(Any, head), in_channels=dataset.preprocess.channels, **options
    )


def new_head(kind: str, model: nn.Module, num_classes: int, seed: int) -> nn.Module:
    """A fresh head for ``model`` (re-training the classifier), a function of ``seed``."""
    torch.manual_seed(seed)
    device = next(model.parameters()).device
    return make_head(cast(Any, kind), cast(int, model.feature_dim), num_classes).to(device)


def decoder(preprocess: Preprocess) -> Callable[..., Tensor]:
    """A picklable function from a path to the uint8 pixels that the network's preprocessing asks for."""
    return functools.partial(pixels, preprocess)


def freeze_backbone(model: nn.Module) -> list[nn.Parameter]:
    """Turn gradients off outside the head; returns the head's parameters."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    head = list(cast(nn.Module, model.head).parameters())
    for parameter in head:
        parameter.requires_grad_(True)
    return head


def unfreeze(model: nn.Module) -> list[nn.Parameter]:
    """Turn gradients on everywhere, also after a stage that had frozen the backbone; returns all parameters."""
    parameters = list(model.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters


def evaluation_loaders(dataset: Dataset, device: torch.device, workers: int | None = None) -> dict[str, Loader]:
    """Every image once, in order, un-augmented."""
    splits = {"val": dataset.val, "test": dataset.test}
    return {
        name: build_loader(
            split,
            dataset.preprocess,
            batch_size=EVALUATION_BATCH,
            device=device,
            workers=workers,
            decode=decoder(dataset.preprocess),
        )
        for name, split in splits.items()
        if split is not None
    }


def assemble(
    stage: Stage,
    dataset: Dataset,
    model: nn.Module,
    *,
    device: torch.device,
    precision: Precision,
    compile_model: bool = False,
    seed: int = 0,
    eval_every: int = 1,
    workers: int | None = None,
) -> Parts:
    """Build one stage around ``model`` (which moves to ``device``).

    Raises:
        InputError: a name or option that no registry knows.
    """
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    _check_words(stage)
    frozen = stage.trainable == "head"
    parameters = freeze_backbone(model) if frozen else unfreeze(model)
    base = torch.optim.SGD(
        parameters, lr=stage.lr, momentum=stage.momentum, nesterov=stage.nesterov, weight_decay=stage.weight_decay,
        foreach=True,
    )  # fmt: skip
    scaler = precision.scaler()
    optimizer = build_stage_optimizer(stage, base, model, needs_wrapper=scaler is not None, seed=seed)
    loss = build_loss(stage.loss, dataset.class_counts, **stage.loss_options).to(device)
    early = build_loss(stage.early_loss, dataset.class_counts).to(device) if stage.early_loss else loss
    if stage.objective not in OBJECTIVES:
        raise InputError(f"unknown objective {stage.objective!r}; known are {', '.join(OBJECTIVES)}")
    objective = OBJECTIVES[stage.objective](loss, stage.normalization, **stage.objective_options)
    loader = build_loader(
        dataset.train, dataset.preprocess, batch_size=stage.batch_size, device=device, workers=workers,
        augment=build_augment(stage.augment, dataset.preprocess.image_size),
        sampler=_sampler(stage, dataset), seed=seed, decode=decoder(dataset.preprocess),
    )  # fmt: skip
    return Parts(
        model=model,
        forward=torch.compile(model, dynamic=False) if compile_model else model,
        objective=objective,
        optimizer=optimizer,
        loader=loader,
        evaluations=evaluation_loaders(dataset, device, workers),
        groups=dataset.groups,
        num_classes=dataset.num_classes,
        epochs=stage.epochs,
        lr=schedules.lr_schedule(stage.lr_schedule, stage.epochs, stage.lr),
        rho=_rho(stage) if stage.rho else None,
        loss=lambda epoch: early if epoch < stage.loss_start else loss,
        weights=_weights(stage, dataset),
        precision=precision,
        device=device,
        full_batch=stage.batch_size if compile_model else -1,
        accumulate=stage.accumulate,
        backbone_frozen=frozen,
        backbone_mode=stage.backbone_mode,
        eval_every=eval_every,
        step_options={} if scaler is None else {"scaler": scaler},
    )


def build_stage_optimizer(
    stage: Stage, base: torch.optim.Optimizer, model: nn.Module, needs_wrapper: bool = False, seed: int = 0
) -> torch.optim.Optimizer:
    """The optimiser of a stage around ``base``. With a scaler or clipping plain SGD is SAM of radius 0: one pass."""
    options: dict[str, Any] = dict(stage.optimizer_options)
    if stage.clip_grad_norm:
        options["clip_grad_norm"] = stage.clip_grad_norm
    if stage.optimizer == "sgd":
        if not needs_wrapper and not stage.clip_grad_norm:
            return base
        return build_optimizer(base, "sam", rho=0.0, model=model, **options)
    if stage.rho:
        options["rho"] = stage.rho[0]
    if stage.optimizer == "pgd":
        options["seed"] = seed  # of its random vectors
    if stage.optimizer in TWO_PASSES:  # the others make one pass and have no statistics to protect
        options["freeze_bn_stats"] = stage.freeze_bn_stats
    return build_optimizer(base, stage.optimizer, model=model, **options)


def _check_words(stage: Stage) -> None:
    """Words that no registry checks. Raises InputError: the field, its value and what is allowed."""
    for name, allowed in CHOICES.items():
        word = getattr(stage, name)
        if word not in allowed:
            known = ", ".join(map(repr, allowed))
            raise InputError(f"stage {stage.name!r}: {name} is {word!r}; it must be one of {known}")


def _rho(stage: Stage) -> Callable[[int], float]:
    """The radius over epochs. Raises InputError where the numbers do not fit the schedule."""
    if stage.rho_schedule == "constant":
        return schedules.rho_schedule("constant", rho=stage.rho[0])
    if stage.rho_schedule == "linear":
        if len(stage.rho) != 2:
            raise InputError(f"rho_schedule linear needs two numbers, from and to; rho is {list(stage.rho)}")
        return schedules.rho_schedule("linear", total=stage.epochs, rho_min=stage.rho[0], rho_max=stage.rho[1])
    if stage.lr_schedule == "cosine":  # the large-scale recipes
        milestones, reference = schedules.LARGE_SCALE_MILESTONES, schedules.LARGE_SCALE_EPOCHS
    else:
        milestones, reference = schedules.CIFAR_MILESTONES, schedules.CIFAR_EPOCHS
    return schedules.rho_schedule(
        stage.rho_schedule, total=stage.epochs, values=stage.rho, milestones=milestones, reference_total=reference
    )


def _weights(stage: Stage, dataset: Dataset) -> Callable[[int], Tensor] | None:
    if stage.reweight == "none":
        return None
    start = stage.reweight_start if stage.reweight == "drw" else 0
    return schedules.DeferredReweighting(dataset.class_counts, start, stage.beta).weights


def _sampler(stage: Stage, dataset: Dataset) -> Sampler:
    options = {"total_epochs": stage.epochs} if stage.sampler == "progressively-balanced" else {}
    return build_sampler(stage.sampler, dataset.train.labels, dataset.class_counts, **options)
