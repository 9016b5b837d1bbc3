"""Whatever would stop a run later is found before anything is written: numbers that cannot be, names nobody knows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from saddlescape.data.types import Dataset
from saddlescape.errors import InputError
from saddlescape.parallel.ranks import Ranks, check_sync_batchnorm
from saddlescape.runs.config import RunConfig
from saddlescape.training.assemble import assemble, check_shared, new_model, next_head
from saddlescape.training.closed_form import check_head_fit
from saddlescape.training.precision import Precision
from saddlescape.training.stage import Stage

MAX_SEED = 2**32 - 1


def check_numbers(stages: Sequence[Stage]) -> None:
    """Hold the numbers of each stage against their ranges.

    Raises:
        InputError: the stage, the field, its value and what is allowed.
    """
    for stage in stages:
        for name, least in (("epochs", 1), ("batch_size", 1), ("accumulate", 1), ("reweight_start", 0)):
            value = getattr(stage, name)
            _require(stage, name, value, value >= least, f"at least {least}")
        _require(stage, "lr", stage.lr, 0 < stage.lr < math.inf, "a finite number above 0")
        for name in ("momentum", "beta"):
            value = getattr(stage, name)
            _require(stage, name, value, 0 <= value < 1, "from 0 to below 1")
        for name in ("weight_decay", "clip_grad_norm"):
            value = getattr(stage, name)
            _require(stage, name, value, 0 <= value < math.inf, "a finite number of at least 0")
        for radius in stage.rho:
            _require(stage, "rho", radius, 0 <= radius < math.inf, "a finite number of at least 0")
        for group in ("loss_options", "objective_options", "optimizer_options", "sampler_options", "partner_options"):
            for name, value in getattr(stage, group).items():
                if not isinstance(value, str):
                    _require(stage, f"{group}.{name}", value, math.isfinite(value), "a finite number")


def _require(stage: Stage, name: str, value: float, fine: bool, allowed: str) -> None:
    if not fine:
        raise InputError(f"stage {stage.name!r}: {name} is {value:g}; it must be {allowed}")


def rehearse(config: RunConfig, dataset: Dataset) -> None:
    """Build every part of every stage once, on the CPU, and throw it away.

    Leaves torch's random generator as it was.

    Raises:
        InputError: whatever the real run would have complained about after its folder had been written.
    """
    if not config.stages:
        raise InputError("the configuration has no stage; it needs at least one")
    check_numbers(config.stages)
    if not 0 <= config.seed <= MAX_SEED:
        raise InputError(f"--seed {config.seed}: it must lie between 0 and {MAX_SEED}")
    if config.eval_every < 1:
        raise InputError(f"--eval-every {config.eval_every}: at least 1")
    if config.keep_every < 0:
        raise InputError(f"--keep-every {config.keep_every}: at least 0")
    cpu = torch.device("cpu")
    ranks = Ranks(size=config.processes, sync_ascent=config.sync_sam)
    if config.sync_batchnorm:
        check_sync_batchnorm(torch.device(config.device))
    state = torch.get_rng_state()
    try:
        model = new_model(config.model, dataset, config.stages[0].head, config.seed)
        for index, stage in enumerate(config.stages):
            if index:
                model.head = next_head(stage, config.stages[index - 1], model, dataset.num_classes, config.seed)
            check_head_fit(stage)
            parts = assemble(stage, dataset, model, device=cpu, precision=Precision("float32", "cpu"), seed=config.seed)
            check_shared(stage, parts.objective, config.precision, ranks)
            parts.setting(0)
    finally:
        torch.set_rng_state(state)
