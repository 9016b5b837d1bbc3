"""What the loop is made of, and how it is built from a stage: the one place where the instruments meet."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from saddlescape.data.loader import Loader
from saddlescape.data.types import Dataset
from saddlescape.errors import InputError
from saddlescape.losses.base import ClassLoss
from saddlescape.models.heads import make_head
from saddlescape.models.registry import build_model
from saddlescape.optim.registry import build_optimizer
from saddlescape.optim.split import SplitOptimizer
from saddlescape.parallel.ranks import ALONE, Ranks
from saddlescape.records.config import Stage, check_stages
from saddlescape.training.batches import evaluation_loaders, training_features, training_loader
from saddlescape.training.epoch import EpochSetting, at, loss_of
from saddlescape.training.objective import Objective
from saddlescape.training.objectives import OBJECTIVES
from saddlescape.training.precision import Precision
from saddlescape.training.trainable import parameter_groups


@dataclass
class Parts:
    """One stage, built: everything the loop touches. ``forward`` is the model, compiled where that was chosen."""

    model: nn.Module
    forward: Callable[[Tensor], Tensor]
    objective: Objective
    optimizer: torch.optim.Optimizer
    loader: Loader
    evaluations: dict[str, Loader]  # "val", "test"
    groups: dict[str, list[int]]
    num_classes: int
    epochs: int
    setting: Callable[[int], EpochSetting]  # what holds in an epoch
    precision: Precision
    device: torch.device
    full_batch: int  # only batches of this size go through ``forward`` if it is compiled; others through ``model``
    features: Callable[[], tuple[Tensor, Tensor]]  # of every training image, un-augmented, with the labels
    accumulate: int = 1
    backbone_mode: str = "train"
    eval_every: int = 1
    step_options: dict[str, Any] = field(default_factory=dict)
    ranks: Ranks = ALONE  # the processes that share the run


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


def next_head(stage: Stage, before: Stage, model: nn.Module, num_classes: int, seed: int) -> nn.Module:
    """The head that ``stage`` starts with: fresh, the one of the stage before, or one that builds upon it.

    Raises:
        InputError: a head that cannot build upon the one before.
    """
    if stage.head == before.head and not stage.reset_head:
        return cast(nn.Module, model.head)
    head = new_head(stage.head, model, num_classes, seed)
    if not stage.reset_head and hasattr(head, "adopt"):
        cast(Any, head).adopt(model.head)
    return head


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
    ranks: Ranks = ALONE,
) -> Parts:
    """Build one stage around ``model`` (which moves to ``device``); with several ``ranks``, this process's share of it.

    Raises:
        InputError: a name or option that no registry knows, or what several processes cannot share.
    """
    model = model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    check_stages([stage])
    setting = functools.partial(at, stage, dataset.class_counts)
    setting(0)  # raises now what is wrong with it
    objective = _objective(stage, loss_of(stage, dataset.class_counts), dataset, model).to(device)
    base = torch.optim.SGD(
        parameter_groups(stage, model, objective), lr=stage.lr, momentum=stage.momentum, nesterov=stage.nesterov,
        weight_decay=stage.weight_decay, foreach=True,
    )  # fmt: skip
    check_shared(stage, objective, precision.name, ranks)
    scaler = precision.scaler()
    optimizer = build_stage_optimizer(
        stage, base, model, needs_wrapper=scaler is not None, seed=seed, class_counts=dataset.class_counts
    )
    if isinstance(optimizer, SplitOptimizer) and not ranks.alone:
        optimizer.share_batches(ranks.mean, ranks.rank, ascent=ranks.sync_ascent)
    return Parts(
        model=model,
        forward=_compiled(model, optimizer) if compile_model else model,
        objective=objective,
        optimizer=optimizer,
        loader=training_loader(
            stage, dataset, device=device, seed=seed, workers=workers,
            ranks=ranks if type(objective).prepare is Objective.prepare else ALONE,  # what mixes needs whole batches
        ),
        evaluations=evaluation_loaders(dataset, device, workers, ranks),
        groups=dataset.groups,
        num_classes=dataset.num_classes,
        epochs=stage.epochs,
        setting=setting,
        precision=precision,
        device=device,
        full_batch=ranks.shard_size(stage.batch_size) if compile_model else -1,
        features=functools.partial(training_features, model, dataset, device, precision, workers),
        accumulate=stage.accumulate,
        backbone_mode=stage.backbone_mode,
        eval_every=eval_every,
        step_options={} if scaler is None else {"scaler": scaler},
        ranks=ranks,
    )  # fmt: skip


def _compiled(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[Tensor], Tensor]:
    if getattr(optimizer, "per_sample", False):
        # These go back through one graph more than once, which buffers given away in the first pass would forbid.
        import torch._functorch.config as functorch

        functorch.donated_buffer = False
    return cast(Callable[[Tensor], Tensor], torch.compile(model, dynamic=False))


def build_stage_optimizer(
    stage: Stage, base: torch.optim.Optimizer, model: nn.Module, needs_wrapper: bool = False, seed: int = 0,
    class_counts: Sequence[int] | None = None,
) -> torch.optim.Optimizer:  # fmt: skip
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
    if stage.optimizer in ("pgd", "partial-sam"):
        options["seed"] = seed  # of its random draws
    options["freeze_bn_stats"] = stage.freeze_bn_stats
    return build_optimizer(base, stage.optimizer, model=model, class_counts=class_counts, **options)


def check_shared(stage: Stage, objective: Objective, precision: str, ranks: Ranks) -> None:
    """Raises InputError for a stage whose batches several processes cannot share: the loss would be another one."""
    if ranks.alone or stage.head_fit:
        return
    message = f"stage {stage.name!r} cannot be trained by {ranks.size} processes"
    if stage.optimizer == "cc-sam" and ranks.sync_ascent:
        raise InputError(
            f"{message} in step: cc-sam climbs for each class by a process's own images; leave out --sync-sam"
        )
    if not objective.per_image:
        raise InputError(
            f"{message}: objective {stage.objective!r} compares the images of a batch with each other; "
            "start one without torchrun"
        )
    if precision == "fp16" and not ranks.sync_ascent and stage.rho:
        # One process alone would see its gradient overflow, skip the step and leave the others waiting.
        raise InputError(f"{message} in fp16 if each climbs its own gradient: use --precision bf16 or --sync-sam")


def _objective(stage: Stage, loss: ClassLoss, dataset: Dataset, model: nn.Module) -> Objective:
    """An objective is built with its options, and with ``class_counts`` or ``model`` where it names them."""
    if stage.objective not in OBJECTIVES:
        raise InputError(f"unknown objective {stage.objective!r}; known are {', '.join(OBJECTIVES)}")
    build = OBJECTIVES[stage.objective]
    on_offer = {"class_counts": dataset.class_counts, "model": model}
    wanted = {name: value for name, value in on_offer.items() if name in inspect.signature(build).parameters}
    try:
        objective = build(loss, **(dict(stage.objective_options) | wanted))
    except TypeError as error:
        raise InputError(f"objective {stage.objective!r}: {error}") from error
    if len(stage.views) < objective.views_needed or (objective.needs_partner and not stage.partner):
        needed = [f"{objective.views_needed} augmentations in views"] if objective.views_needed else []
        needed += ["a sampler in partner"] if objective.needs_partner else []
        raise InputError(f"stage {stage.name!r}: objective {stage.objective!r} needs {' and '.join(needed)}")
    return objective
