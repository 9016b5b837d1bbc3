"""Which number format is faster here: a few steps of each, on the run's own network and batch size."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from saddlescape.data.types import Dataset
from saddlescape.records.config import Stage
from saddlescape.training.loop import set_epoch, take_step
from saddlescape.training.parts import Parts, assemble, new_model
from saddlescape.training.precision import Precision

TRIALS = 4


def seconds_per_step(
    stage: Stage, dataset: Dataset, model_name: str, names: tuple[str, ...], device: torch.device, **network: Any
) -> dict[str, float]:
    """Median seconds of an eager training step in each number format, the formats taking turns.

    ``network``: options that ``build_model`` takes beside the name.

    Works on networks of its own; the state of the global random generator is put back.
    """
    state = torch.get_rng_state()
    try:
        built: dict[str, Parts] = {}
        times: dict[str, list[float]] = {name: [] for name in names}
        for name in names:
            model = new_model(model_name, dataset, stage.head, seed=0, **network)
            precision = Precision(name, device.type)
            built[name] = assemble(stage, dataset, model, device=device, precision=precision)
            set_epoch(built[name], 0)
        batches = {name: parts.loader.epoch(0) for name, parts in built.items()}
        for trial in range(TRIALS):
            for name, parts in built.items():
                batch = next(batches[name], None)
                if batch is None:
                    return {name: statistics.median(values) for name, values in times.items() if values}
                begun = time.perf_counter()
                take_step(parts, [batch])
                if trial:  # the first one warms up
                    times[name].append(time.perf_counter() - begun)
        return {name: statistics.median(values) for name, values in times.items() if values}
    finally:
        torch.set_rng_state(state)
