"""Whatever would stop a run later is found before anything is written: numbers that cannot be, names nobody knows."""

from __future__ import annotations

import torch

from saddlescape.data.types import Dataset
from saddlescape.parallel.ranks import Ranks, check_sync_batchnorm
from saddlescape.records.config import RunConfig, check
from saddlescape.runs.frozen import placeholder
from saddlescape.training.closed_form import check_head_fit
from saddlescape.training.parts import assemble, check_shared, new_model, next_head
from saddlescape.training.precision import Precision


def rehearse(config: RunConfig, dataset: Dataset) -> None:
    """Build every part of every stage once, on the CPU, and throw it away.

    Leaves torch's random generator as it was.

    Raises:
        InputError: whatever the real run would have complained about after its folder had been written.
    """
    check(config)
    cpu = torch.device("cpu")
    ranks = Ranks(size=config.processes, sync_ascent=config.sync_sam)
    if config.sync_batchnorm:
        check_sync_batchnorm(torch.device(config.device))
    if config.backbone.frozen:
        dataset = placeholder(dataset)
    state = torch.get_rng_state()
    try:
        model = new_model(config.network, dataset, config.stages[0].head, config.seed, **config.network_options)
        for index, stage in enumerate(config.stages):
            if index:
                model.head = next_head(stage, config.stages[index - 1], model, dataset.num_classes, config.seed)
            check_head_fit(stage)
            parts = assemble(stage, dataset, model, device=cpu, precision=Precision("float32", "cpu"), seed=config.seed)
            check_shared(stage, parts.objective, config.precision, ranks)
            parts.setting(0)
    finally:
        torch.set_rng_state(state)
